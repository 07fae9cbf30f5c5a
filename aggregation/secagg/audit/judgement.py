"""Judgement of sketches: how large each update is, and who is left out of the sum for it.

‖R·x‖²/64 is ‖x‖² times a χ² of 64 degrees of freedom over 64, nearly: a standard deviation of 18 %.
An update is too large if that is above 1.5² times the bound's square: one at the bound is flagged
with probability 4·10⁻⁸, one twice as large missed with 2·10⁻³, three times with 10⁻¹⁰.

Both ends of a pair send the sketch of their common mask. Two that differ hold a liar; both leave
the sum, unless one of them differs from more than c others, which an honest one cannot (§20.5).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nomoat.aggregation.secagg.audit.sketch import WORDS

TOLERANCE = 1.5  # times the bound
PEAK = 6.0  # standard deviations that one word of a sketch may reach without wrapping around

Ring = NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class NormTest:
    """Test of a sketch against the bound on its update. limit: the bound in units of the ring."""

    limit: float
    bits: int  # of a masked coordinate

    def norm(self, sketch: Ring) -> float:
        """The norm that a sketch R·x mod 2^bits tells, in units of the ring."""
        shift = 32 - self.bits
        signed = np.left_shift(sketch, np.uint32(shift)).view(np.int32) >> shift
        return math.sqrt(float((signed.astype(np.float64) ** 2).sum()) / WORDS)

    def too_large(self, sketch: Ring) -> bool:
        """Return True for an update that is larger than the bound allows."""
        return self.norm(sketch) > TOLERANCE * self.limit


def bits_needed(ratio: float, value_bits: int) -> int:
    """Bits of a coordinate in which no word of a sketch wraps around for an update that passes.

    ratio: the bound on the L2 norm over that on a value, which value_bits encode.
    """
    largest = PEAK * TOLERANCE * max(1.0, ratio) * 2.0 ** (value_bits - 1)
    return math.ceil(math.log2(largest)) + 1


def leaving(
    disputes: Iterable[tuple[int, int]], too_large: Collection[int], corrupt: int
) -> frozenset[int]:
    """Return those who leave the sum: whoever is too large, and the ends of disputes that are left.

    Whoever disputes with more than `corrupt` others is a liar: its disputes are not held against
    them.
    """
    ends = [frozenset(pair) for pair in disputes]
    against: Mapping[int, int] = {
        one: sum(one in pair for pair in ends) for pair in ends for one in pair
    }
    liars = {one for one, count in against.items() if count > corrupt}
    open_ends = {one for pair in ends if not pair & liars for one in pair}
    return frozenset(liars | open_ends | set(too_large))
