"""The gradients of many volunteers in one pass, and their optimisers' step; recorded on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nomoat.aggregation.errors import LocalProtocolError
from nomoat.lora.device import backends
from nomoat.lora.training.optimizer import CLIP_NORM
from nomoat.lora.training.pieces.recorded import StaticBatch
from nomoat.lora.training.pieces.recordings import Recordings
from nomoat.lora.training.pieces.sizes import PieceSize, size_for

if TYPE_CHECKING:
    import torch

    from nomoat.lora.data.batches import Batch
    from nomoat.lora.device.backends import Device
    from nomoat.lora.device.recording import KernelRecorder
    from nomoat.lora.training.loss import Losses
    from nomoat.lora.training.stacked import StackedFactors


class NotTogether(LocalProtocolError):
    """Here each volunteer's training needs something of its own: draws, or a loss scale."""


class JointGradients:
    """Adds gradients to the stacks of `factors`, of which the first `active` take part.

    rates, prox (C,): learning rates, and FedProx's μ, None if nobody's is other than 0.
    """

    def __init__(
        self,
        loss_of: Losses,
        factors: StackedFactors,
        rates: torch.Tensor,
        prox: torch.Tensor | None,
    ) -> None:
        self._loss_of, self._factors = loss_of, factors
        self._rates, self._prox = rates, prox
        self._first = True

    def add(self, batch: Batch, owners: NDArray[np.int64], per: torch.Tensor) -> torch.Tensor:
        """Add everybody's gradient, and return everybody's loss (k,), to be read before the next.

        owners: the volunteer of each target. per (k,): what a target of each counts. NotTogether
        if the first pass drew random numbers, or needs a loss scale.
        """
        import torch

        whose = torch.from_numpy(owners).to(self._loss_of.device)
        losses = self._first_losses(batch) if self._first else self._loss_of(batch, "none")
        return _gathered(losses, whose, per)

    def step(self) -> None:
        """Take everybody's optimiser step."""
        self._factors.step(self._rates, self._prox, CLIP_NORM)

    def _first_losses(self, batch: Batch) -> torch.Tensor:
        """Compute the first losses of all, and see whether the base draws anything for them."""
        device = backends.of(self._loss_of.device)
        if device.loss_scale != 1.0:
            raise NotTogether("in float16 each volunteer's loss is scaled by itself")
        before = _random_states(device)
        losses = self._loss_of(batch, "none")
        after = _random_states(device)
        if any(not state.equal(after[name]) for name, state in before.items()):
            raise NotTogether("a base with dropout is trained for one volunteer at a time")
        self._first = False
        return losses


class RecordedJointGradients(JointGradients):
    """The same, recorded for each size of a pass; the first pass and step set libraries up."""

    def __init__(
        self,
        loss_of: Losses,
        factors: StackedFactors,
        rates: torch.Tensor,
        prox: torch.Tensor | None,
        recorder: KernelRecorder,
    ) -> None:
        super().__init__(loss_of, factors, rates, prox)
        self._recorder = recorder
        self._passes: Recordings[tuple[int, PieceSize], _RecordedPass] = Recordings(recorder)
        self._steps: Recordings[int, Callable[[], torch.Tensor]] = Recordings(recorder)
        self._stepped = False

    def add(self, batch: Batch, owners: NDArray[np.int64], per: torch.Tensor) -> torch.Tensor:
        """Add everybody's gradient, as JointGradients.add."""
        recorded = None if self._first else self._pass_for(batch, len(per))
        if recorded is None:
            return super().add(batch, owners, per)
        return recorded.add(batch, owners, per)

    def step(self) -> None:
        """Take everybody's optimiser step; recorded for each number of those who take part."""
        recorded = None
        if self._stepped:
            recorded = self._steps.get(self._factors.active, self._recorded_step)
        if recorded is None:
            super().step()
            self._stepped = True
        else:
            recorded()

    def _pass_for(self, batch: Batch, active: int) -> _RecordedPass | None:
        size = size_for(batch, batch.input_ids.shape[1])
        return self._passes.get(
            (active, size), lambda: _RecordedPass(self._loss_of, self._recorder, size, active)
        )

    def _recorded_step(self) -> Callable[[], torch.Tensor]:
        def work() -> torch.Tensor:
            self._factors.step(self._rates, self._prox, CLIP_NORM)
            return self._rates

        return self._recorder.record(work)


class _RecordedPass:
    """The recording of one size for so many volunteers."""

    def __init__(
        self, loss_of: Losses, recorder: KernelRecorder, size: PieceSize, active: int
    ) -> None:
        import torch

        self._loss_of = loss_of
        self._batch = StaticBatch(size, loss_of.device)
        self._whose = torch.zeros(size.places, dtype=torch.int64, device=loss_of.device)
        self._per = torch.zeros(active, device=loss_of.device)
        self._replay = recorder.record(self._work)

    def _work(self) -> torch.Tensor:
        batch = self._batch
        losses = self._loss_of.computed(batch.ids, None, batch.places, batch.targets, "none")
        return _gathered(losses, self._whose, self._per)

    def add(self, batch: Batch, owners: NDArray[np.int64], per: torch.Tensor) -> torch.Tensor:
        import torch

        whose = np.zeros(self._batch.size.places, np.int64)  # what is filled in has no loss
        whose[: len(owners)] = owners
        self._batch.fill(batch)
        self._whose.copy_(torch.from_numpy(whose), non_blocking=True)
        self._per.copy_(per)
        return self._replay()


def _gathered(losses: torch.Tensor, whose: torch.Tensor, per: torch.Tensor) -> torch.Tensor:
    """Run backward from the weighted losses of all targets; return their sums by volunteer."""
    weighted = losses * per[whose]
    weighted.sum().backward()
    return weighted.new_zeros(len(per)).index_add_(0, whose, weighted.detach())


def _random_states(device: Device) -> dict[str, torch.Tensor]:
    """Return the states of the generators that dropout draws from."""
    import torch

    return {"cpu": torch.get_rng_state(), **device.random_state()}
