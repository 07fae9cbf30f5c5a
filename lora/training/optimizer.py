"""AdamW over an adapter's trained factors, laid out as one tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nomoat.aggregation.errors import NomoatError
from nomoat.aggregation.protocol.adapter import LORA_A, LORA_B
from nomoat.aggregation.protocol.messages import TrainSettings
from nomoat.lora.device import backends
from nomoat.lora.device.quantising import check_bitsandbytes

if TYPE_CHECKING:
    import torch

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

    The factors, and their gradients, become views of it.
    """
    import torch

    wanted = {LORA_A: settings.train_a, LORA_B: settings.train_b}
    chosen = []
    for name, parameter in factors.items():
        suffix = LORA_A if name.endswith(LORA_A) else LORA_B
        parameter.requires_grad_(wanted[suffix])
        parameter.grad = None
        if wanted[suffix]:
            chosen.append(parameter)
    if not chosen:
        raise NomoatError("training was asked for with both factors frozen")
    flat = torch.cat([parameter.detach().reshape(-1) for parameter in chosen])
    flat.grad = torch.zeros_like(flat)
    start = 0
    for parameter in chosen:
        place = slice(start, start + parameter.numel())
        parameter.data = flat[place].view_as(parameter)
        parameter.grad = flat.grad[place].view_as(parameter)
        start = place.stop
    return flat
