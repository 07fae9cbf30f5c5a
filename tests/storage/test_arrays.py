"""Arrays in a file come back as they were, from any number of threads, or are called damaged."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nomoat.storage.arrays import pack, unpack

META = {"round": 3, "names": ["a", "ü"], "loss": 0.1 + 0.2, "none": None}
ARRAYS = {
    "number": np.array(2.5),
    "empty": np.zeros((0, 4), np.float32),
    "across": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "bytes": np.frombuffer(bytes(range(256)), np.uint8),
    "places": np.array([-(2**62), 7]),
}
DATA = pack(META, ARRAYS)


def test_meta_and_arrays_come_back_with_their_shapes_and_types() -> None:
    meta, arrays = unpack(DATA)
    assert meta == META
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        assert np.array_equal(arrays[name], array)
        assert arrays[name].shape == array.shape


@given(st.integers(0, len(DATA) - 1), st.integers(1, 255))
def test_a_changed_byte_is_noticed(place: int, change: int) -> None:
    data = bytearray(DATA)
    data[place] ^= change
    try:
        found = unpack(bytes(data))
    except ValueError:
        return
    # what the header does not need to say the same twice over, such as white space
    assert found[0] == META
    assert all(np.array_equal(found[1][name], array) for name, array in ARRAYS.items())


@given(st.binary(max_size=200) | st.integers(0, len(DATA) - 1).map(lambda n: DATA[:n]))
def test_what_is_no_such_file_is_damaged(data: bytes) -> None:
    with pytest.raises(ValueError, match="damaged"):
        unpack(data)


def test_many_threads_read_at_once() -> None:
    with ThreadPoolExecutor(8) as pool:
        assert all(meta == META for meta, _ in pool.map(unpack, [DATA] * 2000))
