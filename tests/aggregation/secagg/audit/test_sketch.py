"""A sketch is R·v to the bit, linear, and tells a norm as well as a χ² of 64 degrees can."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from nomoat.aggregation.secagg import reference
from nomoat.aggregation.secagg.audit import reference as twin
from nomoat.aggregation.secagg.audit.judgement import (
    TOLERANCE,
    NormTest,
    bits_needed,
    leaving,
)
from nomoat.aggregation.secagg.audit.sketch import RUN, Signs, sketch_keystreams, sketch_packed
from nomoat.aggregation.sums.packing import BLOCK, blocks, pack

SEED, TRANSCRIPT = b"s" * 32, b"t" * 32
VECTORS = Path(__file__).parents[3] / "vectors" / "audit_sketch.json"


def packed(values: np.ndarray, bits: int = 32) -> bytes:
    return b"".join(pack(values[start:stop], bits) for start, stop in blocks(len(values)))


def sketch(values: np.ndarray, seed: bytes = SEED, bits: int = 32) -> np.ndarray:
    return sketch_packed(Signs(seed, TRANSCRIPT), packed(values, bits), len(values), bits)


@pytest.mark.parametrize("length", [1, 65, 1000, RUN + 1])
def test_a_sketch_is_the_slow_twins(length: int) -> None:
    values = np.random.default_rng(length).integers(0, 2**32, length, dtype=np.uint32)
    assert sketch(values).tolist() == twin.sketch(values.tolist(), SEED, TRANSCRIPT)


def test_a_keystreams_sketch_is_that_of_its_words_however_many_are_sketched_at_once() -> None:
    keys = {i: bytes([i]) * 32 for i in range(3)}
    found = sketch_keystreams(Signs(SEED, TRANSCRIPT), keys, 300)
    for i, key in keys.items():
        words = reference.words(key, 300)
        assert found[i].tolist() == twin.sketch(words, SEED, TRANSCRIPT)


@pytest.mark.parametrize("vector", json.loads(VECTORS.read_text())["vectors"])
def test_vectors_pin_signs_order_and_rounding_to_blocks(vector: dict[str, str]) -> None:
    values = np.array(reference.words(bytes.fromhex(vector["key"]), vector["length"]), np.uint32)
    seed = bytes.fromhex(vector["seed"])
    assert sketch(values, seed).astype("<u4").tobytes().hex() == vector["sketch"]


def test_sketches_add_up_as_vectors_do_over_several_blocks() -> None:
    rng = np.random.default_rng(1)
    one, other = (rng.integers(0, 2**32, BLOCK + 100, dtype=np.uint32) for _ in range(2))
    assert np.array_equal(sketch(one + other), sketch(one) + sketch(other))
    assert np.array_equal(sketch(one - other), sketch(one) - sketch(other))


def test_another_seed_and_another_session_have_other_signs() -> None:
    values = np.arange(1, 100, dtype=np.uint32)
    mine = sketch(values)
    assert not np.array_equal(mine, sketch(values, b"x" * 32))
    other = sketch_packed(Signs(SEED, b"u" * 32), packed(values), len(values), 32)
    assert not np.array_equal(mine, other)


SHAPES = {
    "spread": lambda rng, d: rng.normal(size=d),
    "in one coordinate": lambda rng, d: np.eye(1, d, 77)[0],
    "in one column": lambda rng, d: np.isin(np.arange(d), np.arange(5, RUN, 256)).astype(float),
    "at one place of each run": lambda rng, d: (np.arange(d) % RUN == 9).astype(float),
    "the same in all runs": lambda rng, d: np.tile(rng.normal(size=RUN), d // RUN),
    "in the first values": lambda rng, d: (np.arange(d) < 40).astype(float),
    "constant": lambda rng, d: np.ones(d),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_norm_that_a_sketch_tells_is_right_wherever_a_vector_is_large(shape: str) -> None:
    """Within what chance allows: 18 % of the square, for each of forty seeds."""
    rng = np.random.default_rng(2)
    values = SHAPES[shape](rng, 8 * RUN)
    values = np.rint(values * 1e6 / np.linalg.norm(values)).astype(np.int64)
    test = NormTest(1.0, 32)
    ring = values.astype(np.uint32)
    found = np.array([test.norm(sketch(ring, bytes([i]) * 32)) for i in range(40)]) / 1e6
    assert abs((found**2).mean() - 1) < 5 * 0.18 / math.sqrt(40)
    assert found.max() < TOLERANCE
    assert found.min() > 0.5


def test_who_is_at_the_bound_passes_and_who_is_three_times_as_large_does_not() -> None:
    rng = np.random.default_rng(3)
    direction = rng.normal(size=2000)
    direction /= np.linalg.norm(direction)
    bits = bits_needed(58.0, 14)
    test = NormTest(58.0 * 2**13, bits)
    for factor, passes in ((1.0, True), (3.0, False), (30.0, False), (3000.0, False)):
        ring = np.rint(direction * factor * test.limit).astype(np.int64).astype(np.uint32)
        for i in range(25):
            assert test.too_large(sketch(ring % 2**bits, bytes([i]) * 32, bits)) is not passes


def test_an_honest_sketch_never_wraps_around_in_the_bits_it_has() -> None:
    for ratio, value_bits in ((1.0, 8), (58.0, 14), (400.0, 14)):
        largest = 6 * TOLERANCE * ratio * 2 ** (value_bits - 1)
        assert largest < 2 ** (bits_needed(ratio, value_bits) - 1) <= 2 * largest


def test_who_disputes_with_more_than_may_be_corrupt_is_the_liar_else_both_leave() -> None:
    assert leaving([], {3}, 2) == {3}
    assert leaving([(0, 1)], set(), 2) == {0, 1}
    assert leaving([(0, i) for i in range(1, 4)], set(), 2) == {0}
    assert leaving([*((0, i) for i in range(1, 4)), (1, 2)], {5}, 2) == {0, 1, 2, 5}
