"""AdamW over an adapter's trained factors, laid out as one tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nomoat.aggregation.errors import NomoatError
from nomoat.aggregation.protocol.adapter import LORA_A, LORA_B
from nomoat.aggregation.protocol.messages import TrainSettings
from nomoat.lora.device import backends
from nomoat.lora.device.quantising import check_bitsandbytes
from nomoat.lora.training.pieces.scattered import apart

if TYPE_CHECKING:
    import torch
    from torch import nn

    from nomoat.lora.model.adapter_slot import SlotFactors

CLIP_NORM = 1.0  # of the gradient of all trained factors together, L2
BETAS = (0.9, 0.999)
EPSILON = 1e-8


def flat_adamw(
    factors: SlotFactors, settings: TrainSettings, adam_8bit: bool = False
) -> tuple[torch.optim.Optimizer, torch.Tensor]:
    """Return AdamW over `flattened` factors, one kernel for all of them, and their gradient."""
    import torch

    flat = flattened(factors, settings)
    assert flat.grad is not None
    options: dict[str, Any] = {"betas": BETAS, "eps": EPSILON, "weight_decay": 0.0, "fused": True}
    if adam_8bit:
        del options["fused"]
        eight_bit = check_bitsandbytes("8-bit Adam", backends.of(flat.device)).optim.AdamW8bit
        return eight_bit([flat], lr=settings.learning_rate, **options), flat.grad
    return torch.optim.AdamW([flat], lr=settings.learning_rate, **options), flat.grad


def flattened(factors: SlotFactors, settings: TrainSettings) -> torch.Tensor:
    """Return those of a slot's factors that are trained as one tensor (d,), its gradient zero.

    It is where the first of them is. The factors there, and their gradients, become views of it;
    others keep values and a gradient of their own.
    """
    import torch

    for parameter in factors.values():
        parameter.grad = None
        parameter.requires_grad_(False)
    chosen = trained_factors(factors, settings)
    if not chosen:
        raise NomoatError("training was asked for with both factors frozen")
    place_of_all = chosen[0].device
    flat = torch.cat([one.detach().reshape(-1).to(place_of_all) for one in chosen])
    flat.grad = torch.zeros_like(flat)
    start = 0
    for parameter in chosen:
        parameter.requires_grad_(True)
        place = slice(start, start + parameter.numel())
        start = place.stop
        if apart(parameter, flat):
            parameter.grad = torch.zeros_like(parameter)
            continue
        parameter.data = flat[place].view_as(parameter)
        parameter.grad = flat.grad[place].view_as(parameter)
    return flat


def trained_factors(factors: SlotFactors, settings: TrainSettings) -> list[nn.Parameter]:
    """Return the factors that are not frozen, in the adapter's order."""
    wanted = {LORA_A: settings.train_a, LORA_B: settings.train_b}
    return [
        parameter
        for name, parameter in factors.items()
        if wanted[LORA_A if name.endswith(LORA_A) else LORA_B]
    ]
