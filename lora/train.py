"""A volunteer's training in one round: some steps of AdamW on the adapter, the base untouched."""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nomoat.aggregation.adapter import LORA_A, LORA_B, Adapter, Vector
from nomoat.aggregation.errors import BadData, NomoatError
from nomoat.aggregation.messages import MAX_LOCAL_STEPS, TrainSettings
from nomoat.lora.adapter_io import extract, slot, swap
from nomoat.lora.batches import Batch, pieces, shuffled, steps_for
from nomoat.lora.encoding import Example
from nomoat.lora.loss import Losses, losses_of
from nomoat.lora.moments import Moments, recall, remember

if TYPE_CHECKING:
    import torch
    from peft import PeftModel

CLIP_NORM = 1.0  # of the gradient of all trained factors together, L2
BETAS = (0.9, 0.999)
EPSILON = 1e-8
CPU_TOKENS = 768  # of one forward pass on a CPU: half the memory of a whole batch, no slower
CHECK_EVERY_STEPS = 50  # reading a loss back makes a GPU wait


@dataclass(frozen=True, eq=False, slots=True)
class Trained:
    """What training gave: the adapter's new values and how it went.

    `tokens`: tokens learnt, counted in every step anew. `first_loss`: of the first batch, before
    any step. `last_loss`: mean over the last quarter of the steps. Both in nats per token.
    """

    vector: Vector
    steps: int
    tokens: int
    first_loss: float
    last_loss: float
    seconds: float
    moments: Moments | None = None  # where settings.keep_moments asked for them


@dataclass(frozen=True, eq=False, slots=True)
class Given:
    """What else a training starts from: the moments an earlier round ended with."""

    moments: Moments | None = None


NOTHING = Given()


def train(  # noqa: PLR0913, PLR0917 - who trains what on what, and how
    model: PeftModel,
    adapter: Adapter,
    examples: Sequence[Example],
    settings: TrainSettings,
    seed: bytes,
    clock: Callable[[], float],
    given: Given = NOTHING,
) -> Trained:
    """Train `adapter` on `examples`: the same arguments on one thread give the same bits.

    The optimiser starts anew (moments of another round's average may pull the wrong way) unless
    `settings.keep_moments`; the learning rate is constant, and the rows' order comes from `seed`:
    another one per round and volunteer. `settings.prox` μ adds μ/2·‖x − x₀‖² to what is minimised,
    x₀ the adapter as given; reported losses are without it (FedProx, Li et al. 2020,
    arXiv:1812.06127, eq. 2). Factors that `settings` freezes come back bit for bit. Raises
    NomoatError if the loss or the adapter stops being finite, BadData without examples.
    """
    if not examples:
        raise BadData("there is nothing to train on: no row has a trained token")
    began = clock()
    steps = settings.local_steps
    if settings.local_epochs:
        steps = steps_for(len(examples), settings.batch_size, settings.local_epochs)
    steps = min(steps, MAX_LOCAL_STEPS)
    swap(model, adapter)
    losses, tokens, moments = _run(model, adapter, examples, settings, seed, (steps, given))
    vector = extract(model, adapter.spec)
    if not math.isfinite(float(abs(vector).max(initial=0.0))):
        raise _diverged(steps, settings)
    last = losses[-max(1, steps // 4) :]
    mean = sum(last) / len(last)
    return Trained(vector, steps, tokens, losses[0], mean, clock() - began, moments)


def _run(
    model: PeftModel,
    adapter: Adapter,
    examples: Sequence[Example],
    settings: TrainSettings,
    seed: bytes,
    how: tuple[int, Given],
) -> tuple[list[float], int, Moments | None]:
    """Take the steps; (the loss of each, tokens learnt in all, moments if they are kept)."""
    import torch

    steps, given = how
    torch.manual_seed(
        int.from_bytes(hashlib.sha256(b"nomoat dropout\0" + seed).digest()[:8], "big")
    )
    optimizer, gradient = _optimizer(model, adapter, settings)
    (values,) = optimizer.param_groups[0]["params"]
    start = values.detach().clone() if settings.prox else None
    before = given.moments or Moments.none(adapter.spec)
    trained = (settings.train_a, settings.train_b)
    if settings.keep_moments:
        recall(before, adapter.spec, trained, optimizer)
    batches = shuffled(examples, settings.batch_size, seed)
    most_tokens = CPU_TOKENS if model.device.type == "cpu" else sys.maxsize
    seen, tokens = [], 0
    model.train()
    with losses_of(model) as loss_of:
        for step in range(1, steps + 1):
            batch = next(batches)
            loss = _accumulate(loss_of, batch, most_tokens)
            if start is not None:
                gradient.add_(values.detach() - start, alpha=settings.prox)
            gradient.mul_((CLIP_NORM / (gradient.norm() + 1e-6)).clamp(max=1.0))
            optimizer.step()
            gradient.zero_()
            seen.append(loss)
            tokens += len(batch.targets)
            if step % CHECK_EVERY_STEPS == 0 and not math.isfinite(seen[-1].item()):
                raise _diverged(step, settings)
    model.eval()
    losses = torch.stack(seen).cpu().tolist()
    if broken := [place for place, loss in enumerate(losses, 1) if not math.isfinite(loss)]:
        raise _diverged(broken[0], settings)
    if not settings.keep_moments:
        return losses, tokens, None
    return losses, tokens, remember(before, adapter.spec, trained, optimizer)


def _accumulate(loss_of: Losses, batch: Batch, most_tokens: int) -> torch.Tensor:
    """Add the gradient of the batch's mean loss, piece by piece; that loss, nats per token."""
    losses = []
    for piece in pieces(batch, most_tokens):
        loss = loss_of(piece, "sum") / len(batch.targets)
        loss.backward()
        losses.append(loss.detach())
    return sum(losses[1:], start=losses[0])


def _optimizer(
    model: PeftModel, adapter: Adapter, settings: TrainSettings
) -> tuple[torch.optim.AdamW, torch.Tensor]:
    """AdamW over the trained factors laid out as one tensor, and that tensor's gradient.

    The factors become views of it: one kernel steps over all of them instead of one each.
    """
    import torch

    parameters = slot(model, adapter.spec)
    wanted = {LORA_A: settings.train_a, LORA_B: settings.train_b}
    chosen = []
    for name, parameter in parameters.items():
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
    options: dict[str, Any] = {"betas": BETAS, "eps": EPSILON, "weight_decay": 0.0, "fused": True}
    return torch.optim.AdamW([flat], lr=settings.learning_rate, **options), flat.grad


def _diverged(step: int, settings: TrainSettings) -> NomoatError:
    return NomoatError(
        f"training diverged at step {step} with learning rate {settings.learning_rate:g}; "
        "lower it (--lr) or look for broken rows in the data (nomoat data preview)"
    )
