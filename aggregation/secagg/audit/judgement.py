"""Judgement of sketches: how large each update is, and who is left out of the sum for it.

‖R·x‖²/64 is ‖x‖² times a χ² of 64 degrees of freedom over 64, nearly: a standard deviation of 18 %.
An update is too large if that is above 1.5² times the bound's square: one at the bound is flagged
with probability 5·10⁻⁸, one twice as large missed with 2·10⁻³, three times with 10⁻⁹.

Between that and the bound chance explains a sketch, and blames nobody. But what one in eighty of
those at the bound shows, and nineteen of twenty of those at 1.4 times it, is in doubt: it is set
aside from this one sum, as if its sender had dropped out (§20.5).

Both ends of a pair send the sketch of their common mask. Two that differ hold a liar; both leave
the sum, unless one of them differs from more than c others, which an honest one cannot, or too few
would be left: then one of each pair leaves (§20.5).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nomoat.aggregation.secagg.audit.sketch import WORDS

TOLERANCE = 1.5  # times the bound: beyond it is a lie
DOUBT = 1.2  # times the bound: beyond it is set aside, and blamed on nobody
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

    def size(self, sketch: Ring) -> float:
        """The norm that a sketch tells, over the bound."""
        return self.norm(sketch) / self.limit

    def too_large(self, sketch: Ring) -> bool:
        """Return True for an update that is larger than the bound allows."""
        return self.size(sketch) > TOLERANCE


def bits_needed(ratio: float, value_bits: int) -> int:
    """Bits of a coordinate in which no word of a sketch wraps around for an update that passes.

    ratio: the bound on the L2 norm over that on a value, which value_bits encode.
    """
    largest = PEAK * TOLERANCE * max(1.0, ratio) * 2.0 ** (value_bits - 1)
    return math.ceil(math.log2(largest)) + 1


def leaving(
    disputes: Iterable[tuple[int, int]],
    too_large: Collection[int],
    corrupt: int,
    room: int = 10_000,
) -> frozenset[int]:
    """Return those who leave the sum: whoever is too large, and one end of each dispute or both.

    Whoever disputes with more than `corrupt` others is a liar: its disputes are not held against
    them. Of the other disputes both ends leave; where that were more than `room` all told, only
    one of each does, first whoever has most: the sum is then still one of masks that both ends
    agree about, and the liar shows when the masks of those who left are revealed.
    """
    pairs = {frozenset(pair) for pair in disputes if not set(pair) & set(too_large)}
    liars = {one for one, count in _against(pairs).items() if count > corrupt}
    pairs = {pair for pair in pairs if not pair & liars}
    both = frozenset({*liars, *too_large}.union(*pairs))
    if len(both) <= room:
        return both
    gone = {*liars, *too_large}
    while pairs:
        against = _against(pairs)
        most = max(against, key=lambda one: (against[one], -one))
        gone.add(most)
        pairs = {pair for pair in pairs if most not in pair}
    return frozenset(gone)


def _against(pairs: Iterable[frozenset[int]]) -> Counter[int]:
    """Each one's number of disputes."""
    return Counter(one for pair in pairs for one in pair)
