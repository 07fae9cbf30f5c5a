"""A volunteer's training in one round: some steps of AdamW on the adapter, the base untouched."""

from __future__ import annotations

import hashlib
import importlib
import logging
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from nomoat.aggregation.errors import BadData, NomoatError, UsageError
from nomoat.aggregation.protocol.adapter import LORA_A, LORA_B, Adapter, Vector
from nomoat.aggregation.protocol.messages import MAX_LOCAL_STEPS, TrainSettings
from nomoat.lora.data.batches import batch_of, shuffled_rows, steps_for
from nomoat.lora.data.encoding import Example
from nomoat.lora.model.adapter_slot import extract, slot, swap
from nomoat.lora.training.loss import losses_of
from nomoat.lora.training.moments import Moments, recall, remember
from nomoat.lora.training.progress import NO_BREAKS, Breaks, Progress

if TYPE_CHECKING:
    import torch
    from peft import PeftModel

log = logging.getLogger(__name__)

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
    """What else a training starts from: moments of an earlier round, and what may come between."""

    moments: Moments | None = None
    breaks: Breaks = NO_BREAKS


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
    arXiv:1812.06127, eq. 2). Factors that `settings` freezes come back bit for bit. A run that was
    laid down and taken up again (`given.breaks`) gives the bits of one that was not. Raises
    NomoatError if the loss or the adapter stops being finite, BadData without examples, Paused
    where the breaks say so.
    """
    if not examples:
        raise BadData("there is nothing to train on: no row has a trained token")
    steps = settings.local_steps
    if settings.local_epochs:
        steps = steps_for(len(examples), settings.batch_size, settings.local_epochs)
    steps = min(steps, MAX_LOCAL_STEPS)
    swap(model, adapter)
    run, moments = _run(model, adapter, examples, settings, seed, (steps, given, clock))
    losses = run.losses()
    if broken := [place for place, loss in enumerate(losses, 1) if not math.isfinite(loss)]:
        raise _diverged(broken[0], settings)
    vector = extract(model, adapter.spec)
    if not math.isfinite(float(abs(vector).max(initial=0.0))):
        raise _diverged(steps, settings)
    last = losses[-max(1, steps // 4) :]
    mean = sum(last) / len(last)
    return Trained(vector, steps, run.tokens, losses[0], mean, run.seconds, moments)


def _run(
    model: PeftModel,
    adapter: Adapter,
    examples: Sequence[Example],
    settings: TrainSettings,
    seed: bytes,
    how: tuple[int, Given, Callable[[], float]],
) -> tuple[Progress, Moments | None]:
    """Take the steps that are left; (how they went, moments if they are kept)."""
    steps, given, clock = how
    _seed_dropout(seed)
    optimizer, gradient = _optimizer(model, adapter, settings, given.breaks.adam_8bit)
    (values,) = optimizer.param_groups[0]["params"]
    start = values.detach().clone() if settings.prox else None
    before = given.moments or Moments.none(adapter.spec)
    trained = (settings.train_a, settings.train_b)
    keep = settings.keep_moments and not given.breaks.adam_8bit
    if settings.keep_moments and not keep:
        log.warning("moments start anew in every round: 8-bit Adam packs them, and none are kept")
    if keep:
        recall(before, adapter.spec, trained, optimizer)
    most_tokens = piece_tokens(model, given.breaks.most_tokens)
    began = clock()
    run = Progress(given.breaks, optimizer, most_tokens, lambda: clock() - began)
    batches = shuffled_rows(examples, settings.batch_size, seed)
    model.train()
    with losses_of(model) as loss_of:
        for rows in islice(batches, run.step, steps):
            batch = batch_of([examples[row] for row in rows])
            run.accumulate(loss_of, batch)
            if start is not None:
                gradient.add_(values.detach() - start, alpha=settings.prox)
            gradient.mul_((CLIP_NORM / (gradient.norm() + 1e-6)).clamp(max=1.0))
            optimizer.step()
            gradient.zero_()
            run.stepped(len(batch.targets), last=run.step + 1 == steps)
            if run.step % CHECK_EVERY_STEPS == 0 and not math.isfinite(run.last_loss):
                raise _diverged(run.step, settings)
    model.eval()
    if not keep:
        return run, None
    return run, remember(before, adapter.spec, trained, optimizer)


def piece_tokens(model: PeftModel, wanted: int | None) -> int:
    """Padded tokens of one forward pass at most: `wanted`, but no more than the device likes."""
    likes = CPU_TOKENS if model.device.type == "cpu" else sys.maxsize
    return likes if wanted is None else min(likes, wanted)


def _seed_dropout(seed: bytes) -> None:
    import torch

    torch.manual_seed(
        int.from_bytes(hashlib.sha256(b"nomoat dropout\0" + seed).digest()[:8], "big")
    )


def _optimizer(
    model: PeftModel, adapter: Adapter, settings: TrainSettings, adam_8bit: bool = False
) -> tuple[torch.optim.Optimizer, torch.Tensor]:
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
    if adam_8bit:
        del options["fused"]
        return _bitsandbytes().optim.AdamW8bit(
            [flat], lr=settings.learning_rate, **options
        ), flat.grad
    return torch.optim.AdamW([flat], lr=settings.learning_rate, **options), flat.grad


def _bitsandbytes() -> Any:
    try:
        return importlib.import_module("bitsandbytes")
    except ImportError:
        raise UsageError("8-bit Adam needs bitsandbytes: pip install 'nomoat[gpu]'") from None


def _diverged(step: int, settings: TrainSettings) -> NomoatError:
    return NomoatError(
        f"training diverged at step {step} with learning rate {settings.learning_rate:g}; "
        "lower it (--lr) or look for broken rows in the data (nomoat data preview)"
    )
