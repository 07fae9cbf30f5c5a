"""A weighted sum of float32 vectors whose bits do not depend on the order of arrival.

Floating-point addition is not associative, so a plain running sum would give a different adapter
for every order in which reports happen to arrive. Here each term becomes an integer first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nomoat.aggregation.adapter import Vector
from nomoat.aggregation.errors import LocalProtocolError

FRACTION_BITS = 44  # one unit of the sum is 2^-44 ≈ 5.7e-14
MAX_TERM = 32.0  # |w·x| of any coordinate
MAX_TERMS = 16_383  # n · 2^5 · 2^44 < 2^63: an int64 cannot overflow

# Adding 1.5·2^(52-44) to a double of magnitude < 2^7 rounds it to a multiple of 2^-44 and leaves
# that multiple in the low bits of the pattern: bits(v + MAGIC) = bits(MAGIC) + rint(v·2^44).
# Integer addition wraps, so the constant n·bits(MAGIC) is taken off once, at the end.
_MAGIC = 1.5 * 2.0 ** (52 - FRACTION_BITS)
_MAGIC_BITS = int(np.float64(_MAGIC).view(np.int64))
_UNIT = 2.0**-FRACTION_BITS
_BLOCK = 1 << 15  # doubles per block: term and accumulator stay in the second-level cache


@dataclass
class ExactSum:
    """Running Σ wᵢxᵢ and Σ wᵢ in units of 2^-44, each term rounded once; O(d) memory.

    |error of the sum| ≤ n·2^-45 per coordinate, and mean() is a function of the multiset of
    (wᵢ, xᵢ) alone. Changes in place: at 10 M values a copy per report would double the time.
    """

    _bits: NDArray[np.int64]  # (d,) Σ bits(wᵢxᵢ + MAGIC), modulo 2^64
    _weight: int = 0  # Σ rint(wᵢ·2^44)
    count: int = 0
    _term: NDArray[np.float64] = field(default_factory=lambda: np.empty(_BLOCK), repr=False)

    @classmethod
    def empty(cls, size: int) -> ExactSum:
        """The sum of nothing, of vectors (size,)."""
        return cls(np.zeros(size, np.int64))

    @property
    def size(self) -> int:
        """Length d of the vectors."""
        return self._bits.size

    @property
    def weight(self) -> float:
        """Σ wᵢ."""
        return self._weight * _UNIT

    def add(self, vector: Vector, weight: float) -> None:
        """Add weight · vector; vector (d,) float32, weight in (0, 1].

        Raises LocalProtocolError, with the sum as it was before, for another shape or dtype, a
        bad weight, a value that is not finite, |w·x| > 32, or more than 16 383 terms.
        """
        units = self._admit(vector, weight)
        for start in range(0, self.size, _BLOCK):
            if not self._add_block(vector, weight, start):
                for undone in range(0, start, _BLOCK):
                    self._add_block(vector, weight, undone, undo=True)
                raise LocalProtocolError(f"a value is not finite or |w·x| exceeds {MAX_TERM:g}")
        self._weight += units
        self.count += 1

    def sum(self) -> NDArray[np.float64]:
        """Σ wᵢxᵢ as float64 (d,)."""
        constant = np.uint64(self.count * _MAGIC_BITS % 2**64)
        units = (self._bits.view(np.uint64) - constant).view(np.int64)
        total: NDArray[np.float64] = units * np.float64(_UNIT)
        return total

    def mean(self) -> Vector:
        """Σ wᵢxᵢ / Σ wᵢ as float32 (d,); LocalProtocolError if nothing was added."""
        if not self.count:
            raise LocalProtocolError("the mean of no reports is undefined")
        total = self.sum()
        total /= self.weight
        return total.astype(np.float32)

    def _admit(self, vector: Vector, weight: float) -> int:
        if vector.dtype != np.float32 or vector.shape != (self.size,):
            raise LocalProtocolError(
                f"sum takes float32 ({self.size},), not {vector.dtype} {vector.shape}"
            )
        if not 0.0 < weight <= 1.0 or (units := round(math.ldexp(weight, FRACTION_BITS))) == 0:
            raise LocalProtocolError(f"weight {weight!r} is not in (0, 1]")
        if self.count >= MAX_TERMS:
            raise LocalProtocolError(f"an exact sum holds at most {MAX_TERMS} reports")
        return units

    def _add_block(self, vector: Vector, weight: float, start: int, undo: bool = False) -> bool:
        """Add (or take back) one block; False, and nothing done, if a value is out of bounds."""
        part = vector[start : start + _BLOCK]
        if not undo and not _within_bounds(part, weight):
            return False
        term = self._term[: part.size]
        term[...] = part
        np.multiply(term, weight, out=term)
        np.add(term, _MAGIC, out=term)
        total = self._bits[start : start + _BLOCK]
        combine = np.subtract if undo else np.add
        combine(total, term.view(np.int64), out=total)
        return True


def _within_bounds(part: Vector, weight: float) -> bool:
    """Every |w·x| ≤ 32; False for NaN and infinities.

    The norm bounds the largest coordinate and costs one fast dot product; only a block that
    fails it (a comparison with NaN or an overflow does) pays for the exact maximum.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        if weight * math.sqrt(float(np.dot(part, part))) <= 0.99 * MAX_TERM:
            return True
    return bool(weight * float(np.abs(part).max()) <= MAX_TERM)
