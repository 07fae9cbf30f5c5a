"""Bits on the wire: uint32 coordinates of b ≤ 32 significant bits ↔ b/8 bytes each, in blocks.

A block of m coordinates (m a multiple of 8) is cut into planes whose widths are b in powers of
two, low bits first: 27 = 1 + 2 + 8 + 16 is a 16-bit, an 8-bit, a 2-bit and a 1-bit plane. A plane
narrower than a byte packs coordinate j, j + m/p, j + 2m/p … into byte j (p = 8/width), so that
every step is one pass over contiguous memory (docs/protocol.md §16.4).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from nomoat.aggregation.errors import LocalProtocolError

BLOCK = 1 << 18  # coordinates: one MiB of uint32, small enough to stay in cache
GROUP = 8  # a block is padded with zeros to a multiple of this

Ring = NDArray[np.uint32]
_TYPES = {32: "<u4", 16: "<u2", 8: "u1"}


def blocks(length: int) -> Iterator[tuple[int, int]]:
    """[start, stop) of every block of a vector of `length` coordinates."""
    for start in range(0, length, BLOCK):
        yield start, min(start + BLOCK, length)


def packed_bytes(length: int, bits: int) -> int:
    """Bytes that `length` coordinates of `bits` bits take: ⌈length/8⌉·bits."""
    return -(-length // GROUP) * bits


def pack(values: Ring, bits: int) -> bytes:
    """One block (m,) uint32, taken mod 2^bits → ⌈m/8⌉·bits bytes."""
    _check_bits(bits)
    if spare := -len(values) % GROUP:
        values = np.concatenate([values, np.zeros(spare, np.uint32)])
    planes = [_pack_plane(values, shift, width) for shift, width in _planes(bits)]
    return b"".join(plane.data for plane in planes)


def unpack(packed: memoryview, count: int, bits: int) -> Ring:
    """Bytes of one block → its `count` coordinates (count,) uint32, each < 2^bits.

    Raises LocalProtocolError if the length is not what `count` and `bits` make it.
    """
    _check_bits(bits)
    if len(packed) != packed_bytes(count, bits):
        raise LocalProtocolError(f"a packed block has {len(packed)} bytes")
    padded = -(-count // GROUP) * GROUP
    values = np.zeros(padded, np.uint32)
    start = 0
    for shift, width in _planes(bits):
        size = padded * width // 8
        _unpack_plane(packed[start : start + size], values, shift, width)
        start += size
    return values[:count]


def _planes(bits: int) -> Iterator[tuple[int, int]]:
    """(shift, width) of every plane, widest and lowest bits first."""
    shift = 0
    for width in (32, 16, 8, 4, 2, 1):
        if bits & width:
            yield shift, width
            shift += width


def _pack_plane(values: Ring, shift: int, width: int) -> NDArray[np.uint8]:
    shifted = np.right_shift(values, np.uint32(shift)) if shift else values
    if width >= 8:
        return shifted.astype(_TYPES[width]).view(np.uint8)
    narrow = shifted.astype(np.uint8).reshape(8 // width, -1)
    narrow &= (1 << width) - 1
    packed: NDArray[np.uint8] = narrow[0]
    for index, part in enumerate(narrow[1:], 1):
        packed |= part << np.uint8(width * index)
    return packed


def _unpack_plane(packed: memoryview, values: Ring, shift: int, width: int) -> None:
    if width >= 8:
        plane = np.frombuffer(packed, _TYPES[width]).astype(np.uint32)
        values |= plane << np.uint32(shift)
        return
    data = np.frombuffer(packed, np.uint8)
    columns = values.reshape(8 // width, -1)
    for index in range(len(columns)):
        part = (data >> np.uint8(width * index)) & np.uint8((1 << width) - 1)
        columns[index] |= part.astype(np.uint32) << np.uint32(shift)


def _check_bits(bits: int) -> None:
    if not 1 <= bits <= 32:
        raise LocalProtocolError(f"{bits} bits per coordinate: 1 to 32 are possible")
