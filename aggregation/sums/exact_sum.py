"""A weighted sum of float32 vectors whose bits do not depend on the order of arrival.

Floating-point addition is not associative, so a plain running sum would give a different adapter
for every order in which reports happen to arrive. Here each term, the float32 product of weight
and value, becomes an integer first: rint(w·x·2^44). Integers can also be taken off again without a
trace, so a vector need not be judged before it is added: both happen in one reading of it.

    total = ExactSum.empty(d)
    for vector, weight in reports:      # in any order
        total.add(vector, weight)       # LocalProtocolError: the sum is as it was
    total.mean()                        # Σ wᵢxᵢ / Σ wᵢ, float32 (d,)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from nomoat.aggregation.errors import LocalProtocolError
from nomoat.aggregation.protocol.adapter import Vector
from nomoat.aggregation.sums.parallel import Run

FRACTION_BITS = 44  # one unit of the sum is 2^-44 ≈ 5.7e-14
MAX_VALUE = 32.0  # |x| of any coordinate
MAX_TERMS = 16_383  # n · 2^5 · 2^44 < 2^63: an int64 cannot overflow

# Adding 1.5·2^(52-44) to a double of magnitude < 2^7 rounds it to a multiple of 2^-44 and leaves
# that multiple in the low bits of the pattern: bits(v + MAGIC) = bits(MAGIC) + rint(v·2^44).
# Integer addition wraps, so the constant n·bits(MAGIC) is taken off once, at the end.
_MAGIC = 1.5 * 2.0 ** (52 - FRACTION_BITS)
_MAGIC_BITS = int(np.float64(_MAGIC).view(np.int64))
_UNIT = 2.0**-FRACTION_BITS

# Several terms are added to each block of the sum while it is in the processor's cache, or reading
# and writing its 8 bytes per value would be most of the work. In smaller blocks threads would wait
# for the interpreter lock more than they compute.
BLOCK = 1 << 18
_STRIPES = 8

# Values that overflow are found and said by name; numpy need not warn of them, too.
_UNALARMED = partial(np.errstate, over="ignore", invalid="ignore")

Term: TypeAlias = tuple[Vector, float]  # (vector (d,) float32, weight in (0, 1])


@dataclass
class ExactSum:
    """Running Σ wᵢxᵢ and Σ wᵢ in units of 2^-44; O(d) memory.

    Each term is off by at most 2^-24 of itself and 2^-45, the sum of terms by nothing; mean() is
    a function of the multiset of (wᵢ, xᵢ) alone. Changes in place: at 10 M values a copy per
    report would double the time.
    """

    _bits: NDArray[np.int64]  # (d,) Σ bits(wᵢxᵢ + MAGIC), modulo 2^64
    _run: Run = map
    _weight: int = 0  # Σ rint(wᵢ·2^44)
    count: int = 0

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

    def add(self, vector: Vector, weight: float) -> None:
        """Add weight · vector.

        Raises LocalProtocolError, with the sum as it was before, for what add_all() raises or
        leaves out.
        """
        if self.add_all([(vector, weight)]):
            raise LocalProtocolError(f"a value is not finite or |x| exceeds {MAX_VALUE:g}")

    def add_all(self, terms: Sequence[Term], max_norm: float = math.inf) -> dict[int, float]:
        """Add the terms that are sound: every |x| ≤ 32, and an L2 norm of at most max_norm.

        A handful at a time is fastest. Returns position → norm of those left out, which have not
        changed the sum; the norm of one with a value that is not finite or too large is infinite.

        Raises LocalProtocolError, with the sum as it was before, for another shape or dtype, a
        bad weight, or more than 16 383 terms.
        """
        units = [self._units_of(vector, weight) for vector, weight in terms]
        if self.count + len(terms) > MAX_TERMS:
            raise LocalProtocolError(f"an exact sum holds at most {MAX_TERMS} reports")
        norms = self._each_stripe(terms, np.add)
        unsound = {i: norm for i, norm in enumerate(norms) if norm > max_norm or norm == math.inf}
        if unsound:
            self._each_stripe([terms[i] for i in unsound], np.subtract)
        self._weight += sum(unit for i, unit in enumerate(units) if i not in unsound)
        self.count += len(terms) - len(unsound)
        return unsound

    def sum(self) -> NDArray[np.float64]:
        """Σ wᵢxᵢ as float64 (d,)."""
        total: NDArray[np.float64] = _units(self._bits, self.count) * np.float64(_UNIT)
        return total

    def mean(self) -> Vector:
        """Σ wᵢxᵢ / Σ wᵢ as float32 (d,); LocalProtocolError if nothing was added."""
        if not self.count:
            raise LocalProtocolError("the mean of no reports is undefined")
        mean = np.empty(self.size, np.float32)

        def divide(stripe: slice) -> None:
            for part in _blocks(stripe):
                mean[part] = _units(self._bits[part], self.count) / float(self._weight)

        list(self._run(divide, _stripes(self.size)))
        return mean

    def _units_of(self, vector: Vector, weight: float) -> int:
        if vector.dtype != np.float32 or vector.shape != (self.size,):
            raise LocalProtocolError(
                f"sum takes float32 ({self.size},), not {vector.dtype} {vector.shape}"
            )
        narrow = np.float32(weight)
        if not 0.0 < narrow <= 1.0 or (units := round(math.ldexp(narrow, FRACTION_BITS))) == 0:
            raise LocalProtocolError(f"weight {weight} is not in (0, 1]")
        return units

    def _each_stripe(self, terms: Sequence[Term], change: np.ufunc) -> list[float]:
        """Add or subtract the terms; their L2 norms, infinite for one with an unsound value."""
        squares = self._run(partial(self._stripe, terms, change), _stripes(self.size))
        return [math.sqrt(sum(parts)) for parts in zip(*squares, strict=True)]

    def _stripe(self, terms: Sequence[Term], change: np.ufunc, stripe: slice) -> list[float]:
        """The same for one stripe, block by block; Σ x² of each term.

        An unsound block is passed over, in both directions, so only integers come and go.
        """
        squares = [0.0] * len(terms)
        weights = [np.float32(weight) for _, weight in terms]
        product = np.empty(min(BLOCK, stripe.stop - stripe.start), np.float32)
        double = np.empty(product.size)
        with _UNALARMED():
            for part in _blocks(stripe):
                total = self._bits[part]
                narrow, wide = product[: total.size], double[: total.size]
                bits = wide.view(np.int64)
                for index, (vector, _) in enumerate(terms):
                    block = vector[part]
                    square = _square(block)
                    squares[index] += square
                    if square == math.inf:
                        continue
                    # In float32 first: half the bytes, and the conversion is bad at fetching them.
                    np.multiply(block, weights[index], narrow)
                    np.copyto(wide, narrow)
                    np.add(wide, _MAGIC, wide)
                    change(total, bits, total)
        return squares


def sound_norm(vector: Vector, run: Run = map) -> float:
    """L2 norm, infinite if a value is not finite or |x| > 32; bit for bit as add_all() finds it."""

    def square(stripe: slice) -> float:
        with _UNALARMED():
            return sum(_square(vector[part]) for part in _blocks(stripe))

    return math.sqrt(sum(run(square, _stripes(vector.size))))


def _stripes(size: int) -> list[slice]:
    return _parts(slice(0, size), _STRIPES if size > BLOCK else 1)


def _blocks(stripe: slice) -> list[slice]:
    return _parts(stripe, -(-(stripe.stop - stripe.start) // BLOCK))


def _parts(whole: slice, count: int) -> list[slice]:
    """Of equal length, so that no core is left with the last one."""
    length = whole.stop - whole.start
    edges = [whole.start + length * index // count for index in range(count + 1)] if count else []
    return [slice(*pair) for pair in itertools.pairwise(edges)]


def _square(block: Vector) -> float:
    """Σ x², or infinity if a value is not finite or |x| > 32.

    The norm bounds the largest coordinate and costs one fast dot product; only a block that fails
    it (as a comparison with NaN does) pays for the exact maximum.
    """
    square = float(block.dot(block))
    if square <= 0.8 * MAX_VALUE**2 or np.abs(block).max() <= MAX_VALUE:
        return square
    return math.inf


def _units(bits: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Σ rint(wᵢxᵢ·2^44), from the sum of `count` bit patterns."""
    constant = np.uint64(count * _MAGIC_BITS % 2**64)
    return (bits.view(np.uint64) - constant).view(np.int64)
