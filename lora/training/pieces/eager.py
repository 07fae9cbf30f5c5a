"""The gradient of a piece, computed kernel by kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nomoat.aggregation.errors import BadData

if TYPE_CHECKING:
    import torch

    from nomoat.lora.data.batches import Batch
    from nomoat.lora.training.loss import Losses


class EagerGradients:
    """Adds gradients to the parameters' own."""

    def __init__(self, loss_of: Losses) -> None:
        self._loss_of = loss_of

    def add(self, piece: Batch, learnt: int, factor: float) -> torch.Tensor:
        """Add the gradient of factor · (the piece's share of the step's mean loss); the share.

        learnt: trained tokens of the whole step. BadData if no factor takes part in the loss.
        """
        loss = self._loss_of(piece, "sum") / learnt
        if not loss.requires_grad:
            raise BadData("no layer of the adapter takes part in what the model computes")
        (loss if factor == 1.0 else loss * factor).backward()
        return loss.detach()

    def drop(self) -> None:
        """Let go of what is kept for later pieces: its memory is needed."""
