"""Masked vectors: made by a client block by block, added and unmasked by the coordinator (§13).

y_i = X_i + PRG(self_i) + Σ_{j>i} PRG(pair_ij) − Σ_{j<i} PRG(pair_ij)  (mod 2^b, j ∈ N(i) ∩ U2).
Bonawitz et al. 2017 (doi:10.1145/3133956.3133982), §4. No step holds more than the packed vector
and a few blocks: a block is encoded, masked and packed while it is in cache.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from nomoat.aggregation.errors import LocalProtocolError
from nomoat.aggregation.secagg import labels
from nomoat.aggregation.secagg.masks.prg import Keystream, Masks
from nomoat.aggregation.sums.fixed_point import ClipLayout, Contribution, FixedPoint, Ring, encode
from nomoat.aggregation.sums.packing import blocks, pack, packed_bytes, unpack

_STREAMS_AT_ONCE = 256  # cipher states that the coordinator keeps while unmasking


@dataclass(frozen=True, slots=True)
class MaskKeys:
    """Keystream keys to add and to subtract."""

    add: tuple[bytes, ...] = field(repr=False)
    subtract: tuple[bytes, ...] = field(repr=False)


def self_mask_key(seed: bytes, transcript: bytes, index: int) -> bytes:
    """Key of the self mask of `index`."""
    return labels.derive(seed, labels.KDF_SELF_MASK, transcript, labels.index_bytes(index))


def pair_mask_key(agreed: bytes, transcript: bytes, one: int, other: int) -> bytes:
    """Key of the mask that two volunteers share; agreed: X25519 secret of their mask keys."""
    ends = labels.index_bytes(min(one, other), max(one, other))
    return labels.derive(agreed, labels.KDF_PAIR_MASK, transcript, ends)


def client_masks(own_key: bytes, index: int, pairs: Mapping[int, bytes]) -> MaskKeys:
    """List the masks of volunteer `index`: its own, + towards higher indices, − towards lower."""
    higher = tuple(key for other, key in pairs.items() if other > index)
    lower = tuple(key for other, key in pairs.items() if other < index)
    return MaskKeys((own_key, *higher), lower)


def masked_vector(
    contribution: Contribution,
    layout: ClipLayout,
    point: FixedPoint,
    rounding_key: bytes,
    keys: MaskKeys,
    share: Callable[[int], Ring] | None = None,
) -> bytes:
    """y, packed: encode, mask and pack one block at a time.

    share: gives the next so many integers of this volunteer's share of the sum's noise.
    Peak memory beyond the contribution is the result and about eight blocks.
    """
    noise, masks = Keystream(rounding_key), Masks(keys.add, keys.subtract)
    packed = io.BytesIO()
    for start, stop in blocks(layout.length):
        count = stop - start
        halves = noise.words(-(-count // 2)).view("<u2")[:count]
        block = encode(contribution, layout, point, start, halves)
        if share is not None:
            np.add(block, share(count), out=block)
        masks.apply(block)
        packed.write(pack(block, point.wire_bits))
    return packed.getvalue()


class MaskedSum:
    """The coordinator's running sum: O(d), however many vectors are added."""

    def __init__(self, length: int, point: FixedPoint) -> None:
        self._sum = np.zeros(length, np.uint32)
        self._point = point

    def check(self, packed: bytes) -> None:
        """Raise LocalProtocolError unless `packed` has exactly the length of a masked vector."""
        expected = packed_bytes(len(self._sum), self._point.wire_bits)
        if len(packed) != expected:
            raise LocalProtocolError(f"a masked vector has {expected} bytes, not {len(packed)}")

    def add(self, packed: bytes) -> None:
        """Add one masked vector, block by block."""
        self.check(packed)
        view, offset, bits = memoryview(packed), 0, self._point.wire_bits
        for start, stop in blocks(len(self._sum)):
            size = packed_bytes(stop - start, bits)
            block = self._sum[start:stop]
            np.add(block, unpack(view[offset : offset + size], stop - start, bits), out=block)
            offset += size

    def remove(self, packed: bytes) -> None:
        """Take a masked vector off again that was added."""
        view, offset, bits = memoryview(packed), 0, self._point.wire_bits
        for start, stop in blocks(len(self._sum)):
            size = packed_bytes(stop - start, bits)
            block = self._sum[start:stop]
            np.subtract(block, unpack(view[offset : offset + size], stop - start, bits), out=block)
            offset += size

    def unmask(self, keys: MaskKeys) -> Ring:
        """The sum after adding and subtracting these keystreams; the running sum is used up."""
        signed = [(key, True) for key in keys.add] + [(key, False) for key in keys.subtract]
        for first in range(0, len(signed), _STREAMS_AT_ONCE):
            batch = signed[first : first + _STREAMS_AT_ONCE]
            self._apply((k for k, plus in batch if plus), (k for k, plus in batch if not plus))
        return self._sum

    def _apply(self, add: Iterable[bytes], subtract: Iterable[bytes]) -> None:
        masks = Masks(add, subtract)
        for start, stop in blocks(len(self._sum)):
            masks.apply(self._sum[start:stop])
