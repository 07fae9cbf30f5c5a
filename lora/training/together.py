"""Many volunteers trained at once over one frozen base; train.py, one at a time, is the oracle.

The base is the same for all, so their rows go through it as one batch, and only the low-rank part
knows whose row it is: with rows ordered by volunteer c, each adapted layer adds

    y += s_c · (x A_cᵀ) B_cᵀ        two batched products over c

The loss is Σ_c L_c. The factors of one volunteer touch no other's loss, so the gradient of the sum
holds everybody's own gradient; it is clipped for each by itself, and Adam's step is elementwise. A
small model on a fast device waits for kernels to be launched, and here C volunteers wait once.

What differs from the oracle is the order in which floating point numbers are added: losses and
updates agree within 10⁻⁵ relative in float32, and not to the bit. How volunteers are grouped moves
the last bits, too, so nothing that promises bits may use this.

    found = train_together(model, [JoinedTraining(adapter, rows, settings, seed), …], clock)
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nomoat.aggregation.errors import BadData
from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.aggregation.protocol.messages import TrainSettings
from nomoat.lora.data.batches import PAD, Batch, shuffled_rows
from nomoat.lora.data.encoding import Example
from nomoat.lora.device import backends
from nomoat.lora.training.loss import losses_of
from nomoat.lora.training.moments import Moments
from nomoat.lora.training.movement import check_layers_move, tells
from nomoat.lora.training.pieces.joint import (
    JointGradients,
    NotTogether,
    RecordedJointGradients,
)
from nomoat.lora.training.pieces.recordings import LEAST_PIECES
from nomoat.lora.training.stacked import StackedFactors
from nomoat.lora.training.train import Trained, diverged, mean_of_last, steps_of

__all__ = ["JoinedTraining", "NotTogether", "alike", "train_together"]

if TYPE_CHECKING:
    import torch
    from peft import PeftModel


@dataclass(frozen=True, eq=False, slots=True)
class JoinedTraining:
    """One volunteer's training, as train.train takes it. share: of the rows, as in train.Given."""

    adapter: Adapter
    examples: Sequence[Example]
    settings: TrainSettings
    seed: bytes
    moments: Moments | None = None
    frozen: Adapter | None = None
    share: float = 1.0

    @property
    def steps(self) -> int:
        """Optimiser steps that it takes."""
        return steps_of(self.settings, len(self.examples))

    def batches(self) -> Iterator[list[Example]]:
        """Yield the rows of each step."""
        size, seed = self.settings.batch_size, self.seed
        rows_of = shuffled_rows(self.examples, size, seed, self.share)
        for rows in islice(rows_of, self.steps):
            yield [self.examples[row] for row in rows]


def alike(settings: Sequence[TrainSettings]) -> bool:
    """Return True if volunteers with these settings may train together: only the steps differ."""
    return len({(s.seq_len, s.train_a, s.train_b, s.keep_moments) for s in settings}) == 1


def train_together(
    model: PeftModel,
    participants: Sequence[JoinedTraining],
    clock: Callable[[], float],
    most_tokens: int | None = None,
) -> list[Trained]:
    """Train every participant from its own adapter on its own rows; results in their order.

    All are of one model's layers; ranks, scales, rows, steps, batch sizes, learning rates and μ may
    differ (`alike` says what may not). most_tokens: padded tokens of one forward pass at most, all
    participants together. Raises what train.train raises, if it is anybody's, and NotTogether
    where each training has draws of its own (a base with dropout), or a loss scale (float16).
    """
    if any(not participant.examples for participant in participants):
        raise BadData("there is nothing to train on: no row has a trained token")
    began = clock()
    # Whoever takes most steps comes first, so that those still at it are a slice.
    order = sorted(range(len(participants)), key=lambda i: -participants[i].steps)
    run = _TogetherRun(model, [participants[i] for i in order], most_tokens)
    model.train()
    with run.gradients(model) as gradients:
        run.go(gradients)
    model.eval()
    found: dict[int, Trained] = {}
    for place, index in enumerate(order):
        found[index] = run.result(place, clock() - began)
    return [found[index] for index in range(len(participants))]


class _TogetherRun:
    """The steps of a group, its most persistent members first."""

    def __init__(
        self, model: PeftModel, members: Sequence[JoinedTraining], most_tokens: int | None
    ) -> None:
        self._model, self._members = model, members
        self._limit = most_tokens
        self._batches = [member.batches() for member in members]
        self._losses: list[list[torch.Tensor]] = [[] for _ in members]
        self._tokens = [0] * len(members)
        self._telling: Batch | None = None
        self.factors = StackedFactors(
            model,
            [member.adapter for member in members],
            [member.frozen for member in members],
            members[0].settings,
        )
        if members[0].settings.keep_moments:
            self.factors.recall([m.moments or Moments.none(m.adapter.spec) for m in members])

    @contextlib.contextmanager
    def gradients(self, model: PeftModel) -> Iterator[JointGradients]:
        """Yield what computes everybody's gradients and steps, for `go`."""
        import torch

        settings = [member.settings for member in self._members]
        rates = torch.tensor([s.learning_rate for s in settings], device=model.device)
        prox = None
        if any(s.prox for s in settings):
            prox = torch.tensor([s.prox for s in settings], device=model.device)
        recorder = backends.of(model.device).recorder()
        with losses_of(model) as loss_of, self.factors.in_place(model):
            given = loss_of, self.factors, rates, prox
            if recorder is None or self._members[0].steps < LEAST_PIECES:
                yield JointGradients(*given)
                return
            with recorder.in_order():
                yield RecordedJointGradients(*given, recorder)

    def go(self, gradients: JointGradients) -> None:
        """Take all steps; at each, those who have any left."""
        for step in range(self._members[0].steps):
            active = sum(member.steps > step for member in self._members)
            batches = [next(batches) for batches in self._batches[:active]]
            self.factors.active = active
            for place, loss in enumerate(self._accumulate(gradients, batches)):
                self._losses[place].append(loss)
            if step == 0 and self._telling is not None:  # else no batch says enough to accuse
                check_layers_move(
                    self.factors.named(), self._members[0].adapter.spec, self._telling
                )
            gradients.step()

    def _accumulate(self, gradients: JointGradients, batches: list[list[Example]]) -> torch.Tensor:
        """Add everybody's gradient, in passes of at most so many tokens; everybody's loss."""
        import torch

        counts = [sum(int(e.trained.sum()) for e in rows) for rows in batches]
        for place, count in enumerate(counts):
            self._tokens[place] += count
        device = self._model.device
        per = 1.0 / torch.tensor(counts, dtype=torch.float32, device=device)
        total = torch.zeros(len(batches), device=device)
        for batch, owners in _passes(batches, self._limit):
            total += gradients.add(batch, owners, per)
            self._telling = batch if tells(batch) else self._telling
        return total

    def result(self, place: int, seconds: float) -> Trained:
        """Return what came out for one member."""
        import torch

        member = self._members[place]
        losses = torch.stack(self._losses[place]).cpu().tolist()
        if broken := [step for step, loss in enumerate(losses, 1) if not math.isfinite(loss)]:
            raise diverged(broken[0], member.settings)
        vector = self.factors.vector(place)
        if not math.isfinite(float(abs(vector).max(initial=0.0))):
            raise diverged(member.steps, member.settings)
        kept = None
        if member.settings.keep_moments:
            before = member.moments or Moments.none(member.adapter.spec)
            kept = self.factors.remember(place, before)
        ends = losses[0], mean_of_last(losses)
        return Trained(vector, member.steps, self._tokens[place], *ends, seconds, kept)


def _passes(
    batches: list[list[Example]], most_tokens: int | None
) -> Iterator[tuple[Batch, NDArray[np.int64]]]:
    """Cut batches, one per volunteer, into passes with as many rows of each.

    Yields (rows ordered by volunteer, the volunteer of each target). Where one has fewer rows than
    another, rows of padding that nothing is learnt from stand in.
    """
    width = max(len(row.input_ids) for rows in batches for row in rows)
    most = max(len(rows) for rows in batches)
    height = most
    if most_tokens is not None:
        height = max(1, min(most, most_tokens // (width * len(batches))))
    for start in range(0, most, height):
        yield _pass([rows[start : start + height] for rows in batches], min(height, most - start))


def _pass(parts: list[list[Example]], height: int) -> tuple[Batch, NDArray[np.int64]]:
    width = max((len(row.input_ids) for rows in parts for row in rows), default=1)
    ids = np.full((len(parts) * height, width), PAD, np.int64)
    places, targets, owners = [], [], []
    for owner, rows in enumerate(parts):
        for number, row in enumerate(rows):
            at = owner * height + number
            ids[at, : len(row.input_ids)] = row.input_ids
            trained = np.flatnonzero(row.trained)
            places.append(trained + (at * width - 1))
            targets.append(row.input_ids[trained])
            owners.append(np.full(len(trained), owner, np.int64))
    batch = Batch(ids, np.concatenate(places), np.concatenate(targets).astype(np.int64))
    return batch, np.concatenate(owners)
