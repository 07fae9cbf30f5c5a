"""A piece's rows shared out among several devices, each of which holds the whole base.

The sum is the same: every device adds its rows' gradients into a tensor of its own, and when a
piece has been given out those are added to the first device's, in the devices' order. Devices work
at the same time because a GPU is given work faster than it does it, where a model is large enough
to need several. Nothing is recorded here: a recording saves what is lost on small models only.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nomoat.lora.data.batches import pieces
from nomoat.lora.training.loss import losses_of
from nomoat.lora.training.pieces.eager import EagerGradients

if TYPE_CHECKING:
    import torch
    from peft import PeftModel

    from nomoat.lora.data.batches import Batch
    from nomoat.lora.training.loss import Losses


@dataclass(frozen=True, eq=False, slots=True)
class ReplicaGradients:
    """The base on another device, and its trained factors as one tensor (d,) with its gradient."""

    eager: EagerGradients
    values: torch.Tensor

    def add(self, values: torch.Tensor, part: Batch, learnt: int, factor: float) -> torch.Tensor:
        """Compute a part's gradient at `values`; what was added before is forgotten."""
        import torch

        assert self.values.grad is not None
        self.values.grad.zero_()
        with torch.no_grad():
            self.values.copy_(values, non_blocking=True)
        return self.eager.add(part, learnt, factor)


class SpreadGradients(EagerGradients):
    """Adds the gradients of all devices to that of `values`, which are on the first."""

    def __init__(
        self, loss_of: Losses, values: torch.Tensor, replicas: Sequence[ReplicaGradients]
    ) -> None:
        super().__init__(loss_of)
        self._values, self._replicas = values, replicas

    def add(self, piece: Batch, learnt: int, factor: float) -> torch.Tensor:
        """Add the gradient, as EagerGradients.add; few rows leave the last devices without any."""
        rows, width = piece.input_ids.shape
        each = -(-rows // (1 + len(self._replicas)))
        first, *others = pieces(piece, each * width)
        given = list(zip(self._replicas, others, strict=False))
        losses = [one.add(self._values, part, learnt, factor) for one, part in given]
        loss = super().add(first, learnt, factor)
        gradient = self._values.grad
        assert gradient is not None
        for (replica, _), found in zip(given, losses, strict=True):
            assert replica.values.grad is not None
            gradient.add_(replica.values.grad.to(gradient.device))
            loss = loss + found.to(loss.device)
        return loss


@contextlib.contextmanager
def spread(
    model: PeftModel, values: torch.Tensor, others: Sequence[tuple[PeftModel, torch.Tensor]]
) -> Iterator[SpreadGradients]:
    """Yield the gradients of `model`, whose factors are views of `values`, and of others like it.

    others: models on other devices, and the tensor that their factors are views of.
    """
    with contextlib.ExitStack() as opened:
        loss_of = opened.enter_context(losses_of(model))
        replicas = []
        for other, flat in others:
            other.train()
            opened.callback(other.eval)
            eager = EagerGradients(opened.enter_context(losses_of(other)))
            replicas.append(ReplicaGradients(eager, flat))
        yield SpreadGradients(loss_of, values, replicas)
