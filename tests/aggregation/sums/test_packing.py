"""Packed bits: the exact size, every width, nothing read beyond its end."""

from __future__ import annotations

import numpy as np
import pytest

from nomoat.aggregation.errors import LocalProtocolError
from nomoat.aggregation.sums.packing import BLOCK, blocks, pack, packed_bytes, unpack


@pytest.mark.parametrize("bits", range(1, 33))
def test_every_width_round_trips_and_takes_bits_eighths_of_a_byte(bits):
    rng = np.random.default_rng(bits)
    values = rng.integers(0, 2**32, 1000, dtype=np.uint32)
    packed = pack(values, bits)
    assert len(packed) == packed_bytes(1000, bits) == 125 * bits
    expected = values & np.uint32(2**bits - 1)
    assert np.array_equal(unpack(memoryview(packed), 1000, bits), expected)


@pytest.mark.parametrize("count", [1, 7, 8, 9, 15, 16, 17])
def test_lengths_that_are_no_multiple_of_eight_are_padded(count):
    values = np.arange(count, dtype=np.uint32)
    packed = pack(values, 5)
    assert len(packed) == packed_bytes(count, 5)
    assert np.array_equal(unpack(memoryview(packed), count, 5), values)


def test_a_known_block():
    # 9 bits: an 8-bit plane, then a 1-bit plane with coordinate j in bit j.
    values = np.array([0x100, 0x001, 0x1FF, 0, 0, 0, 0, 0x180], np.uint32)
    assert pack(values, 9) == bytes([0x00, 0x01, 0xFF, 0, 0, 0, 0, 0x80, 0b10000101])


@pytest.mark.parametrize("size", [0, 124, 126])
def test_bytes_of_another_length_are_refused(size):
    with pytest.raises(LocalProtocolError, match="bytes"):
        unpack(memoryview(bytes(size)), 40, 25)


@pytest.mark.parametrize("bits", [-1, 0, 33])
def test_impossible_widths_are_refused(bits):
    with pytest.raises(LocalProtocolError, match="1 to 32"):
        pack(np.zeros(8, np.uint32), bits)


def test_blocks_cover_a_vector_once():
    length = 2 * BLOCK + 5
    found = list(blocks(length))
    assert found == [(0, BLOCK), (BLOCK, 2 * BLOCK), (2 * BLOCK, length)]
    assert list(blocks(0)) == []
