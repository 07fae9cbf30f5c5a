"""The gradient of a base whose layers lie on several devices, computed kernel by kernel.

The optimiser's values of all layers are one tensor on the first device. Factors of layers there are
views of it; those elsewhere are copies, renewed before each piece, whose gradients are added to the
first's after it. So all that knows of the one tensor (checkpoints, pauses, smaller pieces, the loss
scale) knows nothing of this.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nomoat.lora.training.pieces.eager import EagerGradients

if TYPE_CHECKING:
    import torch
    from torch import nn

    from nomoat.lora.data.batches import Batch
    from nomoat.lora.training.loss import Losses


@dataclass(frozen=True, eq=False, slots=True)
class AwayFactor:
    """A factor on another device, and its place among the first device's values and gradient."""

    parameter: nn.Parameter
    values: torch.Tensor
    gradient: torch.Tensor

    def renew(self) -> None:
        """Take the values that the optimiser has reached."""
        self.parameter.data.copy_(self.values, non_blocking=True)


def apart(parameter: torch.Tensor, flat: torch.Tensor) -> bool:
    """Tell whether a factor cannot be a view of `flat`."""
    return parameter.device != flat.device


def away_factors(factors: Sequence[nn.Parameter], flat: torch.Tensor) -> list[AwayFactor]:
    """Return those of the trained `factors` that are apart; `flat` (d,) has all, in this order."""
    assert flat.grad is not None
    found, start = [], 0
    for factor in factors:
        place = slice(start, start + factor.numel())
        if apart(factor, flat):
            shape = factor.shape
            values, gradient = flat.detach()[place].view(shape), flat.grad[place].view(shape)
            found.append(AwayFactor(factor, values, gradient))
        start = place.stop
    return found


class ScatteredGradients(EagerGradients):
    """Adds the gradients of all devices to that of the first."""

    def __init__(self, loss_of: Losses, away: Sequence[AwayFactor]) -> None:
        super().__init__(loss_of)
        self._away = away

    def add(self, piece: Batch, learnt: int, factor: float) -> torch.Tensor:
        """Add the gradient, as EagerGradients.add; each factor's own is that of the step so far."""
        for one in self._away:
            one.renew()
            assert one.parameter.grad is not None
            one.parameter.grad.zero_()  # a piece that did not fit may have left some
        loss = super().add(piece, learnt, factor)
        for one in self._away:
            assert one.parameter.grad is not None
            one.gradient.add_(one.parameter.grad.to(one.gradient.device))
            one.parameter.grad.copy_(one.gradient)
        return loss


@contextlib.contextmanager
def scattered(loss_of: Losses, away: Sequence[AwayFactor]) -> Iterator[ScatteredGradients]:
    """Yield the gradients; when it ends, every factor has the values that were reached."""
    yield ScatteredGradients(loss_of, away)
    for one in away:
        one.renew()
