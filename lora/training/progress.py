"""The position of a run, piece by piece: what pausing, resuming and too little memory need.

A batch goes through the model in pieces whose gradients add up to the batch's. Between two pieces a
checkpoint may be written (checkpoint.py). A piece that does not fit is cut in half, a gradient that
overflows float16 is scaled less (loss_scale.py), and the step is begun anew: the batch that the
optimiser sees stays the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nomoat.lora.data.batches import Batch, pieces
from nomoat.lora.device import backends
from nomoat.lora.training.checkpoint import RunPosition, TrainingCheckpoint, capture, restore
from nomoat.lora.training.loss_scale import LossScale
from nomoat.lora.training.out_of_memory import halved
from nomoat.lora.training.pieces.eager import EagerGradients
from nomoat.lora.training.steps import TrainingStep

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Breaks:
    """Interruptions of a run: how it pauses and resumes, and how much it takes at once.

    job: SHA-256 of what is trained (jobs.digest). resume: the checkpoint of an earlier process.
    between: called after every piece but the last with a function that captures the run; it may
    sleep, or raise checkpoint.Paused. most_tokens: padded tokens of a piece at most; None: what the
    device likes best. adam_8bit: moments in 8 bits. told: called after every step with a function
    that tells of it, which makes a GPU wait.
    """

    job: bytes = b""
    resume: TrainingCheckpoint | None = None
    between: Callable[[Callable[[], TrainingCheckpoint]], None] | None = None
    most_tokens: int | None = None
    adam_8bit: bool = False
    told: Callable[[Callable[[], TrainingStep]], None] | None = None


NO_BREAKS = Breaks()


class RunProgress:
    """The steps taken and the pieces of the one under way. `losses`: nats per token of each step.

    most_tokens: padded tokens of a piece at most, until memory runs out. clock: seconds, not
    counting those before `breaks.resume`.
    """

    def __init__(
        self,
        breaks: Breaks,
        optimizer: torch.optim.Optimizer,
        most_tokens: int,
        clock: Callable[[], float],
    ) -> None:
        self._breaks, self._optimizer, self._clock = breaks, optimizer, clock
        self._flat: torch.Tensor = optimizer.param_groups[0]["params"][0]
        self._limit = most_tokens
        self._scale = LossScale(backends.of(self._flat.device).loss_scale)
        self.step = self._piece = self.tokens = 0
        self._earlier_s = 0.0
        self._losses: list[torch.Tensor] = []
        self._loss: torch.Tensor | None = None  # of the pieces of this step so far
        if breaks.resume is not None:
            self._resume(restore(breaks.resume, optimizer, self._flat))

    @property
    def seconds(self) -> float:
        """Spent on training so far, pauses left out."""
        return self._earlier_s + self._clock()

    @property
    def last_loss(self) -> float:
        """Of the last whole step; reading it makes a GPU wait."""
        return float(self._losses[-1].item())

    def losses(self) -> list[float]:
        """Of every whole step."""
        import torch

        return torch.stack(self._losses).cpu().tolist()

    def accumulate(self, gradients: EagerGradients, batch: Batch) -> None:
        """Add the gradient of the batch's mean loss to the parameters', piece by piece."""
        while True:
            try:
                self._pieces(gradients, batch)
                if self._in_range():
                    return
                fewer = self._limit
            except (RuntimeError, MemoryError) as problem:
                found = halved(problem, batch, self._limit)
                if found is None:
                    raise
                fewer = found
            if fewer < self._limit:
                gradients.drop()
            self._limit = fewer
            self._forget_step()  # out here: the exception, and all tensors it holds, are gone

    def stepped(self, tokens: int, steps: int) -> None:
        """Count a step of the optimiser, one of `steps`, on `tokens`; gradients are zero again."""
        assert self._loss is not None
        self._losses.append(self._loss)
        self._loss, self._piece = None, 0
        self.step += 1
        self.tokens += tokens
        if self._breaks.told is not None:
            self._breaks.told(lambda: TrainingStep(self.step, steps, self.last_loss, self.seconds))
        if self.step < steps:
            self._break()

    def _pieces(self, gradients: EagerGradients, batch: Batch) -> None:
        cut = list(pieces(batch, self._limit))
        while self._piece < len(cut):
            part = gradients.add(cut[self._piece], len(batch.targets), self._scale.factor)
            self._loss = part if self._loss is None else self._loss + part
            self._piece += 1
            if self._piece < len(cut):
                self._break()

    def _in_range(self) -> bool:
        """Unscale the step's gradient; False if it overflowed and the step is to be begun anew."""
        assert self._flat.grad is not None
        assert self._loss is not None
        return self._scale.unscale(self._flat.grad, self._loss)

    def _break(self) -> None:
        if self._breaks.between is not None:
            self._breaks.between(self._capture)

    def _capture(self) -> TrainingCheckpoint:
        parts = [*self._losses, *(() if self._loss is None else (self._loss,))]
        losses = tuple(float(part.item()) for part in parts)
        place = RunPosition(
            self.step,
            self._piece,
            self.tokens,
            self.seconds,
            losses,
            self._limit,
            self._scale.factor,
        )
        return capture(self._breaks.job, place, self._optimizer, self._flat)

    def _resume(self, place: RunPosition) -> None:
        """Go on from `place`; its pieces are kept, so that sums are added in the same order.

        Where there is less memory than then, a step half done is begun anew in smaller pieces.
        What dropout drew for it is not known any more: it draws on.
        """
        import torch

        losses = [torch.tensor(x, device=self._flat.device) for x in place.losses]
        self.step, self._piece, self.tokens = place.step, place.micro, place.tokens
        self._losses = losses[: place.step]
        self._loss = losses[place.step] if place.micro else None
        self._earlier_s = place.seconds
        self._scale = LossScale(place.loss_scale)
        if self._limit >= place.most_tokens:
            self._limit = place.most_tokens
        elif place.micro:
            self._forget_step()

    def _forget_step(self) -> None:
        assert self._flat.grad is not None
        self._flat.grad.zero_()
        self._piece, self._loss = 0, None
        backends.of(self._flat.device).give_back()
