"""A volunteer's training in one round: some steps of AdamW on the adapter, the base untouched."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from nomoat.aggregation.errors import BadData, NomoatError
from nomoat.aggregation.protocol.adapter import Adapter, Vector
from nomoat.aggregation.protocol.messages import MAX_LOCAL_STEPS, TrainSettings
from nomoat.lora.data.batches import Batch, batch_of, shuffled_rows, steps_for
from nomoat.lora.data.encoding import Example
from nomoat.lora.data.row_counts import RowUse
from nomoat.lora.device import backends
from nomoat.lora.layout.placing import home_of, is_laid_out
from nomoat.lora.model.adapter_slot import read_values, swap
from nomoat.lora.training.loss import losses_of
from nomoat.lora.training.moments import Moments, recall, remember
from nomoat.lora.training.movement import check_layers_move
from nomoat.lora.training.optimizer import CLIP_NORM, flat_adamw, flattened, trained_factors
from nomoat.lora.training.pieces.eager import EagerGradients
from nomoat.lora.training.pieces.recorded import RecordedGradients
from nomoat.lora.training.pieces.recordings import LEAST_PIECES
from nomoat.lora.training.pieces.scattered import away_factors, scattered
from nomoat.lora.training.pieces.spread import spread
from nomoat.lora.training.progress import NO_BREAKS, Breaks, RunProgress

if TYPE_CHECKING:
    import torch
    from peft import PeftModel

    from nomoat.lora.model.adapter_slot import SlotFactors

log = logging.getLogger(__name__)

CPU_TOKENS = 768  # of one forward pass on a CPU: half the memory of a whole batch, no slower
CHECK_EVERY_STEPS = 50  # reading a loss back makes a GPU wait


@dataclass(frozen=True, eq=False, slots=True)
class Trained:
    """The adapter's new values, and how training went.

    tokens: trained on, counted anew in every step. first_loss: of the first batch, before any step.
    last_loss: mean over the last quarter of the steps. Both in nats per token.
    """

    vector: Vector
    steps: int
    tokens: int
    first_loss: float
    last_loss: float
    seconds: float
    moments: Moments | None = None  # where settings.keep_moments asked for them
    rows: RowUse | None = None  # what became of the rows of the file, where there was one


@dataclass(frozen=True, eq=False, slots=True)
class Given:
    """Moments of an earlier round that training starts from, and what may interrupt it.

    share: of the rows, the part that is trained on, drawn anew from each seed. replicas: the same
    model on other devices, which take their part of each piece; most_tokens is of each.
    """

    moments: Moments | None = None
    breaks: Breaks = NO_BREAKS
    share: float = 1.0
    replicas: tuple[PeftModel, ...] = ()


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
    arXiv:1812.06127, eq. 2). Factors that `settings` freezes come back bit for bit. A run that
    resumes from its checkpoint (`given.breaks`) gives the bits of one that never paused. Raises
    NomoatError if the loss or the adapter stops being finite, BadData without examples or if a
    layer of the adapter does not move in the first step, Paused where the breaks say so.
    """
    if not examples:
        raise BadData("there is nothing to train on: no row has a trained token")
    steps = steps_of(settings, len(examples))
    factors = swap(model, adapter)
    run = _Run(adapter, examples, settings, seed, steps, given)
    progress, moments = _take_steps(model, factors, run, clock)
    losses = progress.losses()
    if broken := [step for step, loss in enumerate(losses, 1) if not math.isfinite(loss)]:
        raise diverged(broken[0], settings)
    vector = read_values(factors, adapter.spec)
    if not math.isfinite(float(abs(vector).max(initial=0.0))):
        raise diverged(steps, settings)
    last = mean_of_last(losses)
    return Trained(vector, steps, progress.tokens, losses[0], last, progress.seconds, moments)


def steps_of(settings: TrainSettings, rows: int) -> int:
    """Return how many optimiser steps `settings` ask for on that many rows."""
    steps = settings.local_steps
    if settings.local_epochs:
        steps = steps_for(rows, settings.batch_size, settings.local_epochs)
    return min(steps, MAX_LOCAL_STEPS)


def mean_of_last(losses: Sequence[float]) -> float:
    """Return the mean over the last quarter of the steps."""
    last = losses[-max(1, len(losses) // 4) :]
    return sum(last) / len(last)


@dataclass(frozen=True, eq=False, slots=True)
class _Run:
    """All that decides the bits of one volunteer's training, `steps` optimiser steps long."""

    adapter: Adapter
    examples: Sequence[Example]
    settings: TrainSettings
    seed: bytes
    steps: int
    given: Given


def _take_steps(
    model: PeftModel, factors: SlotFactors, run: _Run, clock: Callable[[], float]
) -> tuple[RunProgress, Moments | None]:
    """Take the steps that are left; (how they went, moments if they are kept)."""
    settings, breaks = run.settings, run.given.breaks
    _seed_dropout(run.seed)
    optimizer, gradient = flat_adamw(factors, settings, breaks.adam_8bit)
    (values,) = optimizer.param_groups[0]["params"]
    start = values.detach().clone() if settings.prox else None
    keep = _keeps_moments(run)
    before = run.given.moments or Moments.none(run.adapter.spec)
    trained = (settings.train_a, settings.train_b)
    if keep:
        recall(before, run.adapter.spec, trained, optimizer)
    began = clock()
    limit = piece_tokens(model, breaks.most_tokens) * (1 + len(run.given.replicas))
    progress = RunProgress(breaks, optimizer, limit, lambda: clock() - began)
    model.train()
    with _gradients(model, factors, run, values) as gradients:
        for batch in _batches(run, progress.step):
            progress.accumulate(gradients, batch)
            if progress.step == 0:
                check_layers_move(factors, run.adapter.spec, batch)
            if start is not None:
                gradient.add_(values.detach() - start, alpha=settings.prox)
            gradient.mul_((CLIP_NORM / (gradient.norm() + 1e-6)).clamp(max=1.0))
            optimizer.step()
            gradient.zero_()
            progress.stepped(len(batch.targets), run.steps)
            if progress.step % CHECK_EVERY_STEPS == 0 and not math.isfinite(progress.last_loss):
                raise diverged(progress.step, settings)
    model.eval()
    if not keep:
        return progress, None
    return progress, remember(before, run.adapter.spec, trained, optimizer)


@contextlib.contextmanager
def _gradients(
    model: PeftModel, factors: SlotFactors, run: _Run, values: torch.Tensor
) -> Iterator[EagerGradients]:
    """Yield what computes gradients: recorded where the device gains by it and the run is long."""
    if run.given.replicas:
        alike = [swap(other, run.adapter) for other in run.given.replicas]
        others = [flattened(factors, run.settings) for factors in alike]
        with spread(model, values, list(zip(run.given.replicas, others, strict=True))) as together:
            yield together
        return
    recorder = backends.of(values.device).recorder()
    with losses_of(model) as loss_of:
        if is_laid_out(model):
            away = away_factors(trained_factors(factors, run.settings), values)
            with scattered(loss_of, away) as found:
                yield found
            return
        if recorder is None or run.steps < LEAST_PIECES or _checkpoints_activations(model):
            yield EagerGradients(loss_of)
            return
        longest = max(len(example.input_ids) for example in run.examples)
        with recorder.in_order():
            assert values.grad is not None
            yield RecordedGradients(loss_of, recorder, longest, values.grad)


def _checkpoints_activations(model: PeftModel) -> bool:
    """Tell whether the backward pass computes layers once more, which draws on random states."""
    return any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


def _batches(run: _Run, done: int) -> Iterator[Batch]:
    """Yield the batch of each step that is left after the first `done`."""
    rows_of = shuffled_rows(run.examples, run.settings.batch_size, run.seed, run.given.share)
    for rows in islice(rows_of, done, run.steps):
        yield batch_of([run.examples[row] for row in rows])


def _keeps_moments(run: _Run) -> bool:
    if not run.settings.keep_moments:
        return False
    if run.given.breaks.adam_8bit:
        log.warning("moments start anew in every round: 8-bit Adam packs them, and none are kept")
        return False
    return True


def piece_tokens(model: PeftModel, wanted: int | None) -> int:
    """Return the most padded tokens of a forward pass: `wanted`, or fewer on a CPU."""
    likes = CPU_TOKENS if backends.of(home_of(model)).kind == "cpu" else sys.maxsize
    return likes if wanted is None else min(likes, wanted)


def _seed_dropout(seed: bytes) -> None:
    import torch

    torch.manual_seed(
        int.from_bytes(hashlib.sha256(b"nomoat dropout\0" + seed).digest()[:8], "big")
    )


def diverged(step: int, settings: TrainSettings) -> NomoatError:
    """Return the error of training whose loss or adapter is not finite after `step` steps."""
    return NomoatError(
        f"training diverged at step {step} with learning rate {settings.learning_rate:g}; "
        "lower it (--lr) or look for broken rows in the data (nomoat data preview)"
    )
