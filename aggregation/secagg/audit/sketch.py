"""Sketches: R·v mod 2^32 for a public random R of 64 rows of ±1, the same of everybody's vectors.

R is linear and so is masking, so what is left of R·y after the sketches of all masks are taken off
is R·x: 64 numbers that tell ‖x‖ to 9 % and next to nothing else (docs/protocol.md §20).

A block of m coordinates is padded with zeros and laid out as (64, B), coordinate p·B + j in row p
and column j. Column j gets random signs, then a Walsh–Hadamard transform, then random signs again;
columns and blocks are added. Every entry of R is ±1, and entries of different columns are
independent. The transform works on whole rows, which are contiguous: six additions a value.

    signs = Signs(seed, transcript)
    sketches = sketch_keystreams(signs, {j: key_j}, length)      # of masks
    sketch_packed(signs, packed, length, bits)                   # of a masked vector
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from nomoat.aggregation.secagg import labels
from nomoat.aggregation.secagg.masks.prg import Keystream
from nomoat.aggregation.secagg.messages import SKETCH_BYTES
from nomoat.aggregation.sums.packing import blocks, packed_bytes, unpack

WORDS = SKETCH_BYTES // 4  # rows of R, words of a sketch

Ring = NDArray[np.uint32]
Name = TypeVar("Name", bound=Hashable)


class Signs:
    """The signs of R, drawn from an audit's seed for one session; read block by block, in order."""

    def __init__(self, seed: bytes, transcript: bytes) -> None:
        self._stream = Keystream(labels.derive(seed, labels.KDF_AUDIT, transcript))

    def next(self, columns: int) -> tuple[Ring, Ring]:
        """Signs before and after the transform, (64, columns) each, as 1 and 2^32 − 1."""
        words = self._stream.words(4 * columns)  # 128 bits for each column
        bits = np.unpackbits(words.view(np.uint8), bitorder="little")
        signs = np.uint32(1) - np.uint32(2) * bits.astype(np.uint32)
        both = signs.reshape(2, WORDS, columns)
        return both[0], both[1]


def sketch_keystreams(signs: Signs, keys: Mapping[Name, bytes], length: int) -> dict[Name, Ring]:
    """R·PRG(key) of every key, (64,) uint32; keystreams of `length` words."""
    streams = {name: Keystream(key) for name, key in keys.items()}
    found = {name: np.zeros(WORDS, np.uint32) for name in keys}
    for start, stop in blocks(length):
        columns = -(-(stop - start) // WORDS)
        drawn = signs.next(columns)
        for name, stream in streams.items():
            found[name] += _sketch_block(stream.words(stop - start), columns, drawn)
    return found


def sketch_packed(signs: Signs, packed: bytes, length: int, bits: int) -> Ring:
    """R·y of a packed vector of `length` coordinates, (64,) uint32, to be read mod 2^bits."""
    total, view, offset = np.zeros(WORDS, np.uint32), memoryview(packed), 0
    for start, stop in blocks(length):
        columns = -(-(stop - start) // WORDS)
        size = packed_bytes(stop - start, bits)
        block = unpack(view[offset : offset + size], stop - start, bits)
        total += _sketch_block(block, columns, signs.next(columns))
        offset += size
    return total


def _sketch_block(block: Ring, columns: int, signs: tuple[Ring, Ring]) -> Ring:
    """R·v of one block, (64,)."""
    before, after = signs
    if spare := WORDS * columns - len(block):
        block = np.concatenate([block, np.zeros(spare, np.uint32)])
    values = block.reshape(WORDS, columns) * before
    half = np.empty((WORDS // 2, columns), np.uint32)
    span = 1
    while span < WORDS:
        pairs = values.reshape(WORDS // (2 * span), 2, span, columns)
        upper, lower = pairs[:, 0], pairs[:, 1]
        kept = half.reshape(upper.shape)
        np.subtract(upper, lower, out=kept)
        np.add(upper, lower, out=upper)
        lower[...] = kept
        span *= 2
    np.multiply(values, after, out=values)
    summed: Ring = values.sum(axis=1, dtype=np.uint32)
    return summed
