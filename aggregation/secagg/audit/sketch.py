"""Sketches: R·v mod 2^32 for a public random R of 64 rows of ±1, the same of everybody's vectors.

R is linear and so is masking, so what is left of R·y after the sketches of all masks are taken off
is R·x: 64 numbers that tell ‖x‖ to 9 % and next to nothing else (docs/protocol.md §20).

R first adds every coordinate, with a random sign, to one of 2^14 *buckets*: a run of 2^14
coordinates goes to all of them in order, from one drawn for the run on. That keeps a norm but for
coordinates that meet, two of different runs once in 2^14 draws (Charikar et al. 2002,
doi:10.1016/S0304-3975(03)00400-6). The buckets, laid out as (64, 256), then get a Walsh–Hadamard
transform of their columns and random signs, and columns are added (Ailon and Chazelle 2009,
doi:10.1137/060673096). So of a long vector every value is only added once. Its sign costs nothing
where the vector is a keystream: a cipher adds its keystream to a text by XOR, and with one of ones
where a value is to be negated gives −value − 1.

    signs = Signs(seed, transcript)
    sketches = sketch_keystreams(signs, {j: key_j}, length)      # of masks
    sketch_packed(signs, packed, length, bits)                   # of a masked vector
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from nomoat.aggregation.secagg import labels
from nomoat.aggregation.secagg.masks.prg import Keystream, block_buffer
from nomoat.aggregation.secagg.messages import SKETCH_BYTES
from nomoat.aggregation.sums.packing import blocks, packed_bytes, unpack

WORDS = SKETCH_BYTES // 4  # rows of R, words of a sketch
RUN = 1 << 14  # coordinates that go to buckets together, and buckets
COLUMNS = RUN // WORDS

Ring = NDArray[np.uint32]
Name = TypeVar("Name", bound=Hashable)
_BITS = np.arange(256)[:, None] >> np.arange(8) & 1
_NEGATED = (0 - _BITS).astype(np.int32).view(np.uint32)  # a byte's bits as 0 and 2^32 − 1


@dataclass(frozen=True, slots=True)
class BlockSigns:
    """The signs of a block's coordinates, (m,) 0 or 2^32 − 1 for −, and each run's first bucket."""

    negated: Ring
    firsts: tuple[int, ...]


class Signs:
    """All that is random in R, drawn from an audit's seed for one session; read in order, once."""

    def __init__(self, seed: bytes, transcript: bytes) -> None:
        self._stream = Keystream(labels.derive(seed, labels.KDF_AUDIT, transcript))
        drawn = _NEGATED[self._stream.words(RUN // 32).view(np.uint8)].reshape(WORDS, COLUMNS)
        self._after = drawn | np.uint32(1)  # 1 and 2^32 − 1

    def next(self, count: int) -> BlockSigns:
        """Draw for the next `count` coordinates, whole runs but for the last (§20.3)."""
        runs = -(-count // RUN)
        words = self._stream.words(runs * (RUN // 32 + 1)).reshape(runs, -1)
        negated = np.take(_NEGATED, words[:, :-1].copy().view(np.uint8).ravel(), axis=0)
        return BlockSigns(negated.ravel()[:count], tuple((words[:, -1] % RUN).tolist()))

    def words_of(self, buckets: Ring) -> Ring:
        """The sketch that (2^14,) buckets come to, (64,)."""
        transformed = _transformed(buckets.reshape(WORDS, COLUMNS)) * self._after
        summed: Ring = transformed.sum(axis=1, dtype=np.uint32)
        return summed


def sketch_keystreams(signs: Signs, keys: Mapping[Name, bytes], length: int) -> dict[Name, Ring]:
    """R·PRG(key) of every key, (64,) uint32; keystreams of `length` words."""
    streams = [Keystream(key) for key in keys.values()]
    sums = [np.zeros(RUN, np.uint32) for _ in streams]
    spare = np.zeros(RUN, np.uint32)  # −1 of each value that was negated
    buffer = block_buffer()
    for start, stop in blocks(length):
        drawn = signs.next(stop - start)
        _add(spare, drawn.negated, drawn.firsts)
        for stream, buckets in zip(streams, sums, strict=True):
            _add(buckets, stream.over(drawn.negated, buffer), drawn.firsts)
    found = [signs.words_of(buckets - spare) for buckets in sums]
    return dict(zip(keys, found, strict=True))


def sketch_packed(signs: Signs, packed: bytes, length: int, bits: int) -> Ring:
    """R·y of a packed vector of `length` coordinates, (64,) uint32, to be read mod 2^bits."""
    buckets, view, offset = np.zeros(RUN, np.uint32), memoryview(packed), 0
    for start, stop in blocks(length):
        drawn = signs.next(stop - start)
        size = packed_bytes(stop - start, bits)
        block = unpack(view[offset : offset + size], stop - start, bits)
        _add(buckets, (block ^ drawn.negated) - drawn.negated, drawn.firsts)
        offset += size
    return signs.words_of(buckets)


def _add(buckets: Ring, block: Ring, firsts: tuple[int, ...]) -> None:
    """Add the runs of a block to the buckets, each from its first one on and around."""
    for place, first in enumerate(firsts):
        run = block[place * RUN : (place + 1) * RUN]
        straight = buckets[first : first + len(run)]
        np.add(straight, run[: len(straight)], out=straight)
        if (around := len(run) - len(straight)) > 0:
            np.add(buckets[:around], run[len(straight) :], out=buckets[:around])


def _transformed(values: Ring) -> Ring:
    """The Walsh–Hadamard transform of each column."""
    span = 1
    while span < len(values):
        pairs = values.reshape(-1, 2, span, values.shape[1])
        upper, lower = pairs[:, 0], pairs[:, 1]
        values = np.stack([upper + lower, upper - lower], axis=1).reshape(values.shape)
        span *= 2
    return values
