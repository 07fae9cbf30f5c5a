"""The gradient of a piece, recorded once for each size and replayed.

A step of a model of up to a few billion parameters takes a GPU less time than a processor needs to
launch its kernels one by one. Recorded, all kernels of forward and backward pass are one launch.
The first piece of a run is computed kernel by kernel before, for nothing: libraries set themselves
up on the way. What cannot be recorded (a model that reads a value) is computed so for ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nomoat.lora.training.pieces.eager import EagerGradients
from nomoat.lora.training.pieces.recordings import Recordings
from nomoat.lora.training.pieces.sizes import PieceSize, filled_up, size_for

if TYPE_CHECKING:
    import torch

    from nomoat.lora.data.batches import Batch
    from nomoat.lora.device.recording import KernelRecorder
    from nomoat.lora.training.loss import Losses


class RecordedGradients(EagerGradients):
    """Adds gradients to the parameters' own, which are views of `gradient` and stay so.

    longest: tokens of a row at most.
    """

    def __init__(
        self, loss_of: Losses, recorder: KernelRecorder, longest: int, gradient: torch.Tensor
    ) -> None:
        super().__init__(loss_of)
        self._recorder, self._longest, self._gradient = recorder, longest, gradient
        self._recordings: Recordings[PieceSize, _RecordedPiece] = Recordings(recorder)
        self._warm = False

    def add(self, piece: Batch, learnt: int, factor: float) -> torch.Tensor:
        """Add the gradient, as EagerGradients.add."""
        if not self._warm:
            self._warm_up(piece, learnt)
        size = size_for(piece, self._longest)
        recorded = self._recordings.get(
            size, lambda: _RecordedPiece(self._loss_of, self._recorder, size), size.rows > 1
        )
        if recorded is None:
            return super().add(piece, learnt, factor)
        return recorded.add(piece, learnt, factor)

    def drop(self) -> None:
        """Let go of every recording; smaller pieces are recorded anew."""
        self._recordings.drop()

    def _warm_up(self, piece: Batch, learnt: int) -> None:
        """Compute a piece for nothing: wherever a run begins or resumes, its bits are the same."""
        import torch

        before = self._gradient.clone()
        place = self._gradient.device
        devices = () if place.type == "cpu" else (place,)
        with torch.random.fork_rng(devices, device_type=place.type):
            super().add(piece, learnt, 1.0)
        self._gradient.copy_(before)
        self._warm = True


class StaticBatch:
    """A batch's tensors on the device, at one size; a recording reads them where they are."""

    def __init__(self, size: PieceSize, device: torch.device) -> None:
        import torch

        self.size = size
        self.ids = torch.zeros(size.rows, size.width, dtype=torch.int64, device=device)
        self.places = torch.zeros(size.places, dtype=torch.int64, device=device)
        self.targets = torch.zeros(size.places, dtype=torch.int64, device=device)

    def fill(self, piece: Batch) -> None:
        """Put a piece in, filled up to the size."""
        import torch

        tensors = (self.ids, self.places, self.targets)
        for tensor, values in zip(tensors, filled_up(piece, self.size), strict=True):
            tensor.copy_(torch.from_numpy(values), non_blocking=True)


class _RecordedPiece:
    """The recording of one size."""

    def __init__(self, loss_of: Losses, recorder: KernelRecorder, size: PieceSize) -> None:
        import torch

        self._loss_of = loss_of
        self._batch = StaticBatch(size, loss_of.device)
        self._learnt = torch.ones((), device=loss_of.device)
        self._factor = torch.ones((), device=loss_of.device)
        self._replay = recorder.record(self._work)

    def _work(self) -> torch.Tensor:
        batch = self._batch
        loss = self._loss_of.computed(batch.ids, None, batch.places, batch.targets, "sum")
        loss = loss / self._learnt
        (loss * self._factor).backward()
        return loss.detach()

    def add(self, piece: Batch, learnt: int, factor: float) -> torch.Tensor:
        self._batch.fill(piece)
        self._learnt.fill_(float(learnt))
        self._factor.fill_(factor)
        return self._replay().clone()
