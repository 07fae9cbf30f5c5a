"""Reals ↔ ring: how a float32 update becomes integers that can be masked and added exactly.

A value x of a tensor with clip bound C becomes round(x·L/C), an integer of `value_bits` signed
bits, L = 2^(v−1) − 2; the sum of n of them fits v + ⌈log2 n⌉ bits and n·2^v < 2^32 keeps it inside
the uint32 ring, so no sum can overflow. Everyone counts the same: the mean is C·ΣX / (n·L). A
weight that volunteers declare would be one that a liar declares (docs/protocol.md §16).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nomoat.aggregation.errors import LocalProtocolError
from nomoat.aggregation.protocol.adapter import Manifest, Vector
from nomoat.aggregation.sums.packing import blocks

RING_BITS = 32
MIN_VALUE_BITS = 8
MAX_VALUE_BITS = 24  # a float32 has no more
NOISE_BITS = 16  # randomness per rounded value, at most

Ring = NDArray[np.uint32]
Noise = NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class FixedPoint:
    """The bits of a value, and the number of volunteers that may be added.

    least_bits: of a coordinate on the wire, where the sum alone would need fewer. spread: the most
    that noise makes of a coordinate of the sum, in units; 0 without noise.
    """

    value_bits: int
    participants: int
    least_bits: int = 0
    spread: float = 0.0

    def __post_init__(self) -> None:
        if not MIN_VALUE_BITS <= self.value_bits <= MAX_VALUE_BITS:
            raise LocalProtocolError(f"{self.value_bits} value bits: 8 to 24 are possible")
        if self.participants < 1 or self.participants << self.value_bits >= 1 << RING_BITS:
            raise LocalProtocolError(
                f"{self.participants} participants of {self.value_bits} bits overflow the ring; "
                f"at most {((1 << RING_BITS) - 1) >> self.value_bits} fit"
            )
        if self.wire_bits > RING_BITS:
            raise LocalProtocolError(f"{self.wire_bits} bits of a coordinate: at most 32 fit")

    @property
    def wire_bits(self) -> int:
        """b = v + ⌈log2 n⌉, or least_bits, or what noise needs: bits of a masked coordinate."""
        least = max(self.least_bits, self.value_bits + (self.participants - 1).bit_length())
        if not self.spread:
            return least
        return max(least, math.ceil(math.log2(self.most(self.participants) + 1)) + 1)

    def most(self, participants: int) -> int:
        """The largest coordinate of the sum of so many, in units."""
        return participants * (self.limit + 1) + math.ceil(self.spread)

    @property
    def limit(self) -> int:
        """L = 2^(v−1) − 2: what the clip bound maps to; rounding up from it still fits."""
        return (1 << (self.value_bits - 1)) - 2

    @property
    def fraction_bits(self) -> int:
        """Bits below the integer that stochastic rounding looks at: 31 − v, at most 16."""
        return min(NOISE_BITS, 31 - self.value_bits)


@dataclass(frozen=True)
class ClipLayout:
    """The clip bound of each coordinate."""

    manifest: Manifest
    clips: tuple[float, ...]  # one per tensor, the largest |x| of any of its coordinates

    def __post_init__(self) -> None:
        if len(self.clips) != len(self.manifest.tensors):
            raise LocalProtocolError(
                f"{len(self.clips)} clip bounds for {len(self.manifest.tensors)} tensors"
            )
        if not all(0 < clip < float("inf") for clip in self.clips):
            raise LocalProtocolError("every clip bound must be a positive number")

    @property
    def length(self) -> int:
        """d coordinates."""
        return self.manifest.size

    @cached_property
    def _bounds(self) -> tuple[tuple[int, int, float], ...]:
        found, start = [], 0
        for tensor, clip in zip(self.manifest.tensors, self.clips, strict=True):
            found.append((start, start + tensor.size, clip))
            start += tensor.size
        return tuple(found)

    def segments(self, start: int, stop: int) -> Iterator[tuple[slice, float]]:
        """(coordinates, clip bound) of every tensor that meets [start, stop)."""
        for low, high, clip in self._bounds:
            if low < stop and start < high:
                yield slice(max(low, start), min(high, stop)), clip


@dataclass(frozen=True)
class Contribution:
    """One volunteer's addend: a vector (d,) float32 without a NaN or an infinity."""

    vector: Vector

    def __post_init__(self) -> None:
        if self.vector.ndim != 1 or self.vector.dtype != np.float32:
            raise LocalProtocolError("a contribution is a flat float32 vector")
        for start, stop in blocks(len(self.vector)):
            if not np.isfinite(self.vector[start:stop]).all():
                raise LocalProtocolError("the update holds a NaN or an infinity; it is not sent")


def encode(
    contribution: Contribution, layout: ClipLayout, point: FixedPoint, start: int, noise: Noise
) -> Ring:
    """Coordinates [start, start + len(noise)) of x as ring integers, stochastically rounded.

    X = ⌊x·L/C + u⌋ mod 2^32 with u uniform in [0, 1), so E[X] = x·L/C: no bias to add up over
    rounds (Gupta et al. 2015, arXiv:1502.02551, §3). Values beyond ±C are clamped to it. noise:
    uniform uint16, of which the low `fraction_bits` are used. A NaN or infinity is refused.
    """
    stop = start + len(noise)
    fraction = 1 << point.fraction_bits
    top = float(point.limit * fraction)
    scaled = np.empty(len(noise), np.float32)
    for where, clip in layout.segments(start, stop):
        local = slice(where.start - start, where.stop - start)
        np.multiply(contribution.vector[where], np.float32(top / clip), out=scaled[local])
    # Clamping also keeps a NaN that was written after the Contribution was made from being cast.
    _clamp(scaled, np.float32(top))
    np.rint(scaled, out=scaled)
    whole = scaled.astype(np.int32)
    whole += np.bitwise_and(noise, np.uint16(fraction - 1)).astype(np.int32)
    whole >>= point.fraction_bits
    return whole.view(np.uint32)


def _clamp(scaled: Vector, top: np.float32) -> None:
    # min and max hand a NaN on, and a comparison with a NaN is false.
    if scaled.min() >= -top and scaled.max() <= top:
        return
    if not np.isfinite(scaled).all():
        raise LocalProtocolError("the update holds a NaN or an infinity; it is not sent")
    np.clip(scaled, -top, top, out=scaled)


@dataclass(frozen=True)
class SummedMean:
    """The result of an aggregation: the mean of `participants` vectors, float32 (d,)."""

    mean: Vector
    participants: int


def decode(total: Ring, layout: ClipLayout, point: FixedPoint, participants: int) -> SummedMean:
    """Ring sum (d,) of `participants` contributions → their mean, C·ΣX / (n·L).

    Raises LocalProtocolError if a coordinate is larger than that many can make it, which means that
    a volunteer sent something other than it should have.
    """
    shift = RING_BITS - point.wire_bits
    signed = np.left_shift(total, np.uint32(shift)).view(np.int32) >> shift
    most = point.most(participants)
    if signed.min() < -most or signed.max() > most:
        raise LocalProtocolError("the sum is impossible: a contribution was malformed")
    mean = signed.astype(np.float32)
    for where, clip in layout.segments(0, layout.length):
        mean[where] *= np.float32(clip / (participants * point.limit))
    return SummedMean(mean, participants)


def most_value_bits(participants: int) -> int:
    """The largest v with participants·2^v < 2^32."""
    return (((1 << RING_BITS) - 1) // participants).bit_length() - 1
