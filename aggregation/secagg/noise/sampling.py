"""Gaussian noise from a keystream, rounded to integers (docs/protocol.md §21.3).

The uniform numbers are AES-CTR's, under a key that is derived from the session's entropy and
erased with it: 53 bits each, so that no normal beyond 8.6 standard deviations is drawn. Rounding:
an update is integers already, so x + round(g) = round(x + g), and what is done to x + g without
looking at x tells no more of x than x + g does.

    noise = NoiseStream(key, units=120.0)
    noise.integers(1000)              # (1000,) uint32, to be added mod 2^32
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nomoat.aggregation.secagg.masks.prg import Keystream
from nomoat.aggregation.sums.packing import BLOCK

Ring = NDArray[np.uint32]
WORDS = 4  # of the keystream, for two values
PART = 2 * BLOCK // WORDS  # values that one read of the keystream is enough for
_TO_UNIT = 2.0**-53


class NoiseStream:
    """Integers of a normal distribution around 0 with standard deviation `units`."""

    def __init__(self, key: bytes, units: float) -> None:
        self._stream = Keystream(key)
        self._units = units

    def integers(self, count: int) -> Ring:
        """The next `count` integers, mod 2^32."""
        parts = [self._part(min(PART, count - at)) for at in range(0, count, PART)]
        return np.concatenate(parts) if parts else np.zeros(0, np.uint32)

    def _part(self, count: int) -> Ring:
        """Box & Muller 1958: two uniform numbers are two normal ones."""
        pairs = -(-count // 2)
        drawn = self._stream.words(WORDS * pairs).view("<u8") >> np.uint64(11)
        first, second = drawn.astype(np.float64).reshape(2, pairs)
        radius = np.sqrt(-2.0 * np.log((first + 1.0) * _TO_UNIT))
        angle = 2 * np.pi * _TO_UNIT * second
        normal = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]
        whole: Ring = np.rint(normal * self._units).astype(np.int64).astype(np.uint32)
        return whole
