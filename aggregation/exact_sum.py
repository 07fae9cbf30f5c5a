"""A weighted sum of float32 vectors whose bits do not depend on the order of arrival.

Floating-point addition is not associative, so a plain running sum would give a different adapter
for every order in which reports happen to arrive. Here each term, the float32 product of weight
and value, becomes an integer first: rint(w·x·2^44).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nomoat.aggregation.adapter import Vector
from nomoat.aggregation.errors import LocalProtocolError
from nomoat.aggregation.parallel import Run

FRACTION_BITS = 44  # one unit of the sum is 2^-44 ≈ 5.7e-14
MAX_TERM = 32.0  # |w·x| of any coordinate
MAX_TERMS = 16_383  # n · 2^5 · 2^44 < 2^63: an int64 cannot overflow

# Adding 1.5·2^(52-44) to a double of magnitude < 2^7 rounds it to a multiple of 2^-44 and leaves
# that multiple in the low bits of the pattern: bits(v + MAGIC) = bits(MAGIC) + rint(v·2^44).
# Integer addition wraps, so the constant n·bits(MAGIC) is taken off once, at the end.
_MAGIC = 1.5 * 2.0 ** (52 - FRACTION_BITS)
_MAGIC_BITS = int(np.float64(_MAGIC).view(np.int64))
_UNIT = 2.0**-FRACTION_BITS

# Terms wait until a few can be added to each block of the sum while it is in the second-level
# cache; adding each alone is bound by reading and writing the 8 bytes per value of the sum.
_BLOCK = 1 << 17
_MAX_WAITING = 8
_MAX_WAITING_BYTES = 512 << 20
_STRIPES = 8


@dataclass
class ExactSum:
    """Running Σ wᵢxᵢ and Σ wᵢ in units of 2^-44; O(d) memory.

    Each term is off by at most 2^-24 of itself and 2^-45, the sum of terms by nothing; mean() is
    a function of the multiset of (wᵢ, xᵢ) alone. Changes in place: at 10 M values a copy per
    report would double the time. Besides the sum (8 bytes per value) it holds up to eight reports
    or 512 MiB that wait.
    """

    _bits: NDArray[np.int64]  # (d,) Σ bits(wᵢxᵢ + MAGIC), modulo 2^64
    _run: Run = map
    _weight: int = 0  # Σ rint(wᵢ·2^44)
    count: int = 0
    _waiting: list[tuple[Vector, np.float32]] = field(default_factory=list, repr=False)

    @classmethod
    def empty(cls, size: int, run: Run = map) -> ExactSum:
        """The sum of nothing, of vectors (size,).

        run: how independent stripes are worked on.
        """
        return cls(np.zeros(size, np.int64), run)

    @property
    def size(self) -> int:
        """Length d of the vectors."""
        return self._bits.size

    @property
    def weight(self) -> float:
        """Σ wᵢ."""
        return self._weight * _UNIT

    def add(self, vector: Vector, weight: float, *, checked: bool = False) -> None:
        """Add weight · vector; vector (d,) float32, weight in (0, 1].

        checked: the values are known to be finite with |w·x| ≤ 32, as admission.admit ensures;
        saves reading them once more, and is believed: a NaN would spoil the sum unseen.
        A writeable vector is copied, a read-only one only referred to.

        Raises LocalProtocolError, with the sum as it was before, for another shape or dtype, a
        bad weight, a value that is not finite, |w·x| > 32, or more than 16 383 terms.
        """
        narrow = np.float32(weight)
        units = self._admit(vector, narrow)
        with np.errstate(over="ignore", invalid="ignore"):
            sound = checked or _within_bounds(vector, float(narrow))
        if not sound:
            raise LocalProtocolError(f"a value is not finite or |w·x| exceeds {MAX_TERM:g}")
        self._waiting.append((vector.copy() if vector.flags.writeable else vector, narrow))
        self._weight += units
        self.count += 1
        waiting = len(self._waiting)
        if waiting >= _MAX_WAITING or waiting * vector.nbytes >= _MAX_WAITING_BYTES:
            self._settle()

    def sum(self) -> NDArray[np.float64]:
        """Σ wᵢxᵢ as float64 (d,)."""
        self._settle()
        total: NDArray[np.float64] = _units(self._bits, self.count) * np.float64(_UNIT)
        return total

    def mean(self) -> Vector:
        """Σ wᵢxᵢ / Σ wᵢ as float32 (d,); LocalProtocolError if nothing was added."""
        if not self.count:
            raise LocalProtocolError("the mean of no reports is undefined")
        self._settle()
        mean = np.empty(self.size, np.float32)

        def divide(first: int, end: int) -> None:
            for start in range(first, end, _BLOCK):
                part = slice(start, min(start + _BLOCK, end))
                mean[part] = _units(self._bits[part], self.count) / float(self._weight)

        list(self._run(divide, *self._stripes()))
        return mean

    def _admit(self, vector: Vector, weight: np.float32) -> int:
        if vector.dtype != np.float32 or vector.shape != (self.size,):
            raise LocalProtocolError(
                f"sum takes float32 ({self.size},), not {vector.dtype} {vector.shape}"
            )
        if not 0.0 < weight <= 1.0 or (units := round(math.ldexp(weight, FRACTION_BITS))) == 0:
            raise LocalProtocolError(f"weight {weight} is not in (0, 1]")
        if self.count >= MAX_TERMS:
            raise LocalProtocolError(f"an exact sum holds at most {MAX_TERMS} reports")
        return units

    def _settle(self) -> None:
        """Add the terms that wait."""
        if not self._waiting:
            return
        list(self._run(self._settle_stripe, *self._stripes()))
        self._waiting.clear()

    def _stripes(self) -> tuple[range, range]:
        """Where stripes of whole blocks begin and end."""
        stripe = max(_BLOCK, -(-self.size // (_STRIPES * _BLOCK)) * _BLOCK)
        return range(0, self.size, stripe), range(stripe, self.size + stripe, stripe)

    def _settle_stripe(self, first: int, end: int) -> None:
        """Add coordinates first…end of the terms that wait, block by block."""
        product = np.empty(min(_BLOCK, self.size), np.float32)
        term = np.empty(product.size)
        for start in range(first, min(end, self.size), _BLOCK):
            total = self._bits[start : start + _BLOCK]
            narrow, wide = product[: total.size], term[: total.size]
            for vector, weight in self._waiting:
                # In float32 first: half the bytes, and it brings the block into the cache, which
                # the conversion does badly.
                np.multiply(vector[start : start + _BLOCK], weight, out=narrow)
                wide[...] = narrow
                np.add(wide, _MAGIC, out=wide)
                np.add(total, wide.view(np.int64), out=total)


def _units(bits: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Σ rint(wᵢxᵢ·2^44), from the sum of `count` bit patterns."""
    constant = np.uint64(count * _MAGIC_BITS % 2**64)
    return (bits.view(np.uint64) - constant).view(np.int64)


def _within_bounds(part: Vector, weight: float) -> bool:
    """Every |w·x| ≤ 32; False for NaN and infinities.

    The norm bounds the largest coordinate and costs one fast dot product; only a vector that
    fails it (a comparison with NaN or an overflow does) pays for the exact maximum.
    """
    if not part.size:
        return True
    if weight * math.sqrt(float(np.dot(part, part))) <= 0.9 * MAX_TERM:
        return True
    return bool(weight * float(np.abs(part).max()) <= MAX_TERM)
