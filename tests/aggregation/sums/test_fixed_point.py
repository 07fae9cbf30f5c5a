"""Reals to ring and back: no bias, no overflow, and an error below what training can notice."""

from __future__ import annotations

import numpy as np
import pytest

from nomoat.aggregation.errors import LocalProtocolError
from nomoat.aggregation.protocol.adapter import Manifest, TensorSpec
from nomoat.aggregation.sums.fixed_point import (
    ClipLayout,
    Contribution,
    FixedPoint,
    decode,
    encode,
    most_value_bits,
)

MANIFEST = Manifest((TensorSpec("a", (3, 100)), TensorSpec("b", (200,))))
LAYOUT = ClipLayout(MANIFEST, (0.5, 0.01))


def noise(rng, count):
    return rng.integers(0, 2**16, count, dtype=np.uint16)


def one(rng):
    x = rng.uniform(-1, 1, MANIFEST.size).astype(np.float32)
    x[:300] *= 0.5
    x[300:] *= 0.01
    return Contribution(x)


def summed(contributions, point, rng, layout=LAYOUT):
    total = np.zeros(layout.length, np.uint32)
    for contribution in contributions:
        total += encode(contribution, layout, point, 0, noise(rng, layout.length))
    return total & np.uint32(2**point.wire_bits - 1)


def test_the_mean_of_100_is_within_a_millionth_of_the_clip_bound():
    rng = np.random.default_rng(0)
    point = FixedPoint(21, 100)
    contributions = [one(rng) for _ in range(100)]
    found = decode(summed(contributions, point, rng), LAYOUT, point, 100)
    expected = np.mean([c.vector.astype(float) for c in contributions], axis=0)
    clips = np.repeat([0.5, 0.01], [300, 200])
    assert (np.abs(found.mean - expected) / clips).max() <= 1e-6
    assert found.participants == 100


@pytest.mark.parametrize("value_bits", [8, 12, 16, 21, 24])
def test_rounding_has_no_bias(value_bits):
    """Each of 40 values is encoded 20 000 times; the mean error is that of chance (5 σ)."""
    rng = np.random.default_rng(1)
    point, repeats = FixedPoint(value_bits, 2), 20_000
    manifest = Manifest((TensorSpec("a", (40,)),))
    layout = ClipLayout(manifest, (1.0,))
    contribution = Contribution(rng.uniform(-1, 1, 40).astype(np.float32))
    exact = contribution.vector.astype(float) * point.limit
    total = np.zeros(40)
    for _ in range(repeats):
        total += encode(contribution, layout, point, 0, noise(rng, 40)).view(np.int32)
    float32_steps = np.abs(exact) * 2.0**-23
    resolution = 2.0**-point.fraction_bits
    assert (
        np.abs(total / repeats - exact) <= 5 * 0.5 / repeats**0.5 + float32_steps + resolution
    ).all()


def test_rounding_goes_to_a_neighbouring_integer_only():
    rng = np.random.default_rng(2)
    point = FixedPoint(12, 4)
    contribution = one(rng)
    found = encode(contribution, LAYOUT, point, 0, noise(rng, LAYOUT.length)).view(np.int32)
    clips = np.repeat([0.5, 0.01], [300, 200])
    exact = contribution.vector.astype(float) * point.limit / clips
    assert (np.abs(found - exact) < 1.01).all()
    assert (found != np.rint(exact)).mean() > 0.1


@pytest.mark.parametrize(
    ("value_bits", "participants"), [(8, 256), (21, 1024), (21, 1000), (18, 10_000), (24, 255)]
)
def test_the_largest_values_of_the_most_participants_do_not_overflow(value_bits, participants):
    point = FixedPoint(value_bits, participants)
    manifest = Manifest((TensorSpec("a", (2,)),))
    layout = ClipLayout(manifest, (0.1,))
    extreme = Contribution(np.array([0.1, -0.1], np.float32))
    largest = np.full(2, 2**16 - 1, np.uint16)
    encoded = encode(extreme, layout, point, 0, largest).astype(np.uint64)
    total = (encoded * participants % 2**point.wire_bits).astype(np.uint32)
    found = decode(total, layout, point, participants)
    assert found.mean == pytest.approx([0.1, -0.1], rel=3 / point.limit)


@pytest.mark.parametrize(("value_bits", "most"), [(21, 2047), (18, 16_383), (24, 255)])
def test_one_participant_more_than_fits_is_refused(value_bits, most):
    FixedPoint(value_bits, most)
    with pytest.raises(LocalProtocolError, match=f"at most {most} fit"):
        FixedPoint(value_bits, most + 1)
    assert most_value_bits(most) == value_bits
    assert most_value_bits(most + 1) == value_bits - 1


def test_the_wire_needs_v_plus_the_logarithm_of_n_bits():
    assert [FixedPoint(21, n).wire_bits for n in (1, 2, 3, 8, 9, 1000)] == [21, 22, 23, 24, 25, 31]


def test_everyone_counts_the_same():
    rng = np.random.default_rng(3)
    point = FixedPoint(21, 3)
    contributions = [one(rng) for _ in range(3)]
    found = decode(summed(contributions, point, rng), LAYOUT, point, 3)
    expected = sum(c.vector.astype(float) for c in contributions) / 3
    assert np.abs(found.mean - expected).max() < 2e-6
    assert LAYOUT.length == MANIFEST.size  # there is no place for a weight


def test_values_beyond_the_clip_are_clamped_to_their_tensors_own():
    x = np.zeros(500, np.float32)
    x[[0, 10]] = 0.6, -7
    x[300:303] = 0.02, 0.009, -0.02
    contribution = Contribution(x)
    point = FixedPoint(21, 1)
    rng = np.random.default_rng(4)
    found = decode(summed([contribution], point, rng), LAYOUT, point, 1).mean
    assert found[[0, 10]] == pytest.approx([0.5, -0.5], rel=1e-5)
    assert found[300:303] == pytest.approx([0.01, 0.009, -0.01], rel=1e-4)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_are_refused(bad):
    x = np.zeros(500, np.float32)
    x[499] = bad
    with pytest.raises(LocalProtocolError, match="NaN or an infinity"):
        Contribution(x)


def test_what_rounding_looks_at_is_itself_rounded_to_the_nearest():
    point = FixedPoint(21, 2)
    fraction = 1 << point.fraction_bits
    layout = ClipLayout(Manifest((TensorSpec("a", (2,)),)), (1.0,))
    x = np.array([3.9, -3.9], np.float32) / np.float32(point.limit * fraction)
    drawn = np.array([fraction - 4, 4], np.uint16)
    assert encode(Contribution(x), layout, point, 0, drawn).view(np.int32).tolist() == [
        1,
        0,
    ]
    drawn = np.array([fraction - 5, 3], np.uint16)
    assert encode(Contribution(x), layout, point, 0, drawn).view(np.int32).tolist() == [
        0,
        -1,
    ]


def test_chunks_encode_as_the_whole_does():
    rng = np.random.default_rng(5)
    contribution, point, drawn = one(rng), FixedPoint(16, 9), noise(rng, LAYOUT.length)
    whole = encode(contribution, LAYOUT, point, 0, drawn)
    for cut in (1, 299, 300, 301, 499):
        parts = [
            encode(contribution, LAYOUT, point, 0, drawn[:cut]),
            encode(contribution, LAYOUT, point, cut, drawn[cut:]),
        ]
        assert np.array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize("beyond", [1, -1, 1000])
def test_a_sum_larger_than_its_participants_can_make_is_refused(beyond):
    point = FixedPoint(21, 3)
    most = 3 * (point.limit + 1)
    total = np.zeros(LAYOUT.length, np.int32)
    total[7] = most if beyond > 0 else -most
    decode(total.view(np.uint32), LAYOUT, point, 3)
    total[7] += beyond
    with pytest.raises(LocalProtocolError, match="sum is impossible"):
        decode(total.view(np.uint32), LAYOUT, point, 3)


@pytest.mark.parametrize("clips", [(0.1,), (0.1, 0.0), (0.1, -1.0), (0.1, float("inf"))])
def test_bounds_that_do_not_fit_the_manifest_are_refused(clips):
    with pytest.raises(LocalProtocolError, match="clip bound"):
        ClipLayout(MANIFEST, clips)


@pytest.mark.parametrize("value_bits", [7, 25])
def test_value_bits_that_float32_or_rounding_cannot_use_are_refused(value_bits):
    with pytest.raises(LocalProtocolError, match="8 to 24"):
        FixedPoint(value_bits, 2)
