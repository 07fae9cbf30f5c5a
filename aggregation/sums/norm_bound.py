"""A bound on the L2 norm of every update in a sum: volunteers keep to it, the mean shows it.

Norms of honest updates agree within a few per cent, whatever they were trained on, and what a liar
wants takes more: so what passes unseen under masks is at least no larger than what others send
(docs/protocol.md §16.6). The mean of updates within a bound is within it, too; one that is not
holds an update that nobody's own software would send.

    bound = NormBound(clip_l2, method.bounded(spec, round, exchange))
    vector = bound.clip(vector)               # a volunteer, before it encodes
    fault = bound.fault_of_mean(mean)         # the coordinator; None: it may go on
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nomoat.aggregation.protocol.adapter import Vector

ROUNDING = 1.05  # how much larger a mean may be than the bound: fixed point adds its own noise
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class NormBound:
    """‖x[:size]‖₂ ≤ limit, for every update x of a sum. size: coordinates that are an update's.

    noise: norm of the noise in the mean, where there is some.
    """

    limit: float
    size: int
    noise: float = 0.0

    def clip(self, vector: Vector) -> Vector:
        """`vector`, or a copy whose first `size` coordinates are scaled down to the bound."""
        norm = norm_of(vector[: self.size])
        if not norm > self.limit:  # a NaN is refused elsewhere
            return vector
        scaled = vector.copy()
        scaled[: self.size] *= np.float32(self.limit / norm)
        return scaled

    def fault_of_mean(self, mean: Vector) -> str | None:
        """Say why updates within the bound cannot have this mean; None if they can."""
        norm = norm_of(mean[: self.size])
        if norm <= ROUNDING * math.hypot(self.limit, self.noise):
            return None
        return f"the mean's norm is {norm:.3g}, updates within {self.limit:.3g} cannot make it"


def norm_of(vector: Vector) -> float:
    """‖vector‖₂ in float64, without a copy of it; infinite or NaN if a value is."""
    squares = 0.0
    for start in range(0, len(vector), _BLOCK):
        part = vector[start : start + _BLOCK].astype(np.float64)
        squares += float(part @ part)
    return math.sqrt(squares)
