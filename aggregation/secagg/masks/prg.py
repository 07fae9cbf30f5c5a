"""Masks: AES-128-CTR keystreams, added to and taken from uint32 vectors a cache-sized part a time.

A mask is the keystream of AES-128-CTR under key[:16] with initial counter block key[16:28] ‖ 2
(four bytes, big-endian), read as little-endian uint32 (NIST SP 800-38A, section 6.5). Key and nonce
are both secret and fresh. That is what AES-GCM with this nonce makes of zeros (SP 800-38D, section
7.1), and how it is computed here: where a processor has VAES, OpenSSL's GCM is twice as fast as
its CTR, the tag that nobody reads included.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from nomoat.aggregation.sums.packing import BLOCK

Ring = NDArray[np.uint32]
_ZEROS = memoryview(bytes(4 * BLOCK))
_SLACK = 16  # update_into asks for room for one more cipher block


class Keystream:
    """One keystream, read from its beginning in parts of at most BLOCK words."""

    __slots__ = ("_cipher",)

    def __init__(self, key: bytes) -> None:
        self._cipher = Cipher(algorithms.AES(key[:16]), modes.GCM(key[16:28])).encryptor()

    def into(self, buffer: memoryview, words: int) -> None:
        """Write the next `words` uint32 into `buffer`."""
        self._cipher.update_into(_ZEROS[: 4 * words], buffer)

    def over(self, text: Ring, buffer: memoryview) -> Ring:
        """The next len(text) words, each XORed with that of `text`; they lie in `buffer`."""
        self._cipher.update_into(text.data.cast("B"), buffer)
        return np.frombuffer(buffer, "<u4", count=len(text))

    def words(self, count: int) -> Ring:
        """The next `count` words (count,) uint32, count ≤ BLOCK."""
        buffer = bytearray(4 * count + _SLACK)
        self.into(memoryview(buffer), count)
        return np.frombuffer(buffer, "<u4", count=count)


def block_buffer() -> memoryview:
    """Room for a block of a keystream."""
    return memoryview(bytearray(4 * BLOCK + _SLACK))


class Masks:
    """Many keystreams to add and to subtract, advanced together one block at a time."""

    def __init__(self, add: Iterable[bytes], subtract: Iterable[bytes]) -> None:
        self._add = [Keystream(key) for key in add]
        self._subtract = [Keystream(key) for key in subtract]
        self._buffer = block_buffer()
        self._words = np.frombuffer(self._buffer, "<u4", count=BLOCK)

    def apply(self, block: Ring) -> None:
        """block += Σ added − Σ subtracted (mod 2^32), in place; blocks must come in order."""
        mask = self._words[: len(block)]
        for stream in self._add:
            stream.into(self._buffer, len(block))
            np.add(block, mask, out=block)
        for stream in self._subtract:
            stream.into(self._buffer, len(block))
            np.subtract(block, mask, out=block)
