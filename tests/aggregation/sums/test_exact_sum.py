"""The sum's bits depend on what was added, never on the order; bad terms leave no trace."""

from __future__ import annotations

import math
import warnings
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nomoat.aggregation.errors import LocalProtocolError
from nomoat.aggregation.sums.exact_sum import MAX_TERMS, ExactSum, sound_norm

BLOCK = 1 << 12
SIZE = 2 * BLOCK + 1001  # more than two blocks, the last one odd


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr("nomoat.aggregation.sums.exact_sum.BLOCK", BLOCK)


def sum_of(terms):
    total = ExactSum.empty(terms[0][0].size)
    for vector, weight in terms:
        total.add(vector, weight)
    return total


def random_terms(count, size=SIZE, seed=0):
    rng = np.random.default_rng(seed)
    magnitudes = 10.0 ** rng.uniform(-9, 1, (count, 1))
    vectors = (rng.normal(size=(count, size)) * magnitudes).clip(-31, 31).astype(np.float32)
    return [
        (vector, float(w)) for vector, w in zip(vectors, rng.uniform(0.01, 1, count), strict=True)
    ]


def test_any_order_gives_the_same_bits():
    terms = random_terms(9)
    wanted = sum_of(terms).mean().tobytes()
    for seed in range(4):
        shuffled = [terms[i] for i in np.random.default_rng(seed).permutation(len(terms))]
        assert sum_of(shuffled).mean().tobytes() == wanted


def test_a_plain_float32_sum_depends_on_the_order():
    """Else the test above would prove nothing."""
    terms = random_terms(9)
    one = sum(w * vector for vector, w in terms)
    other = sum(w * vector for vector, w in reversed(terms))
    assert one.astype(np.float32).tobytes() != other.astype(np.float32).tobytes()


@given(
    st.lists(
        st.tuples(
            st.floats(-32, 32, width=32),
            st.floats(2**-20, 1.0),
        ),
        min_size=1,
        max_size=20,
    ),
    st.randoms(use_true_random=False),
)
@settings(max_examples=200, deadline=None)
def test_each_term_is_the_nearest_multiple_of_the_unit(terms, random):
    """Against rationals: every term within half a unit of the float32 w·x, order irrelevant."""
    shuffled = list(terms)
    random.shuffle(shuffled)
    totals = [
        sum_of([(np.array([x], np.float32), w) for x, w in order]) for order in (terms, shuffled)
    ]
    assert totals[0].sum().tobytes() == totals[1].sum().tobytes()
    wanted = sum(Fraction(float(np.float32(x) * np.float32(w))) for x, w in terms)
    error = abs(Fraction(float(totals[0].sum()[0])) - wanted)
    # half a unit per term, and one rounding of the total to a double
    assert error <= Fraction(len(terms), 2**45) + abs(wanted) / 2**52


def test_mean_is_the_weighted_mean():
    terms = random_terms(20, 500)
    wanted = sum(w * v.astype(np.float64) for v, w in terms) / sum(w for _, w in terms)
    error = np.linalg.norm(sum_of(terms).mean() - wanted)
    assert error <= 1e-7 * np.linalg.norm(wanted)


def test_weights_are_summed_exactly():
    terms = [(np.ones(3, np.float32), w) for w in (0.1, 0.7, 1.0, 1e-9)]
    one, other = sum_of(terms), sum_of(terms[::-1])
    assert one.weight == other.weight
    assert one.weight == pytest.approx(1.800000001, rel=1e-7)
    assert one.count == 4


@pytest.mark.parametrize("place", [0, BLOCK + 7, SIZE - 1])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 40.0, -3e38])
def test_a_bad_value_is_refused_and_leaves_no_trace(place, value):
    good = random_terms(3)
    total = sum_of(good)
    before = total.sum().tobytes(), total.weight, total.count
    bad = good[0][0].copy()
    bad[place] = value
    with pytest.raises(LocalProtocolError, match="not finite or"):
        total.add(bad, 1.0)
    assert (total.sum().tobytes(), total.weight, total.count) == before


@pytest.mark.parametrize("terms", [[0], [3], [0, 3], [0, 1, 2, 3]])
def test_unsound_terms_are_taken_off_again_and_the_others_stay(terms):
    """In one batch with sound ones, NaN with a payload, infinities and overflow included."""
    batch = random_terms(4)
    others = [pair for index, pair in enumerate(batch) if index not in terms]
    wanted = sum_of(others).mean().tobytes() if others else b""
    for index in terms:
        batch[index][0][[5, BLOCK + index]] = np.nan, -np.inf
        batch[index][0][-1:].view(np.uint32)[:] = 0x7F800001 + index  # a signalling NaN
    total = ExactSum.empty(SIZE)
    assert total.add_all(batch) == dict.fromkeys(terms, math.inf)
    assert total.count == 4 - len(terms)
    if others:
        assert total.mean().tobytes() == wanted
    else:
        assert not total.sum().any()


def test_a_norm_beyond_what_is_allowed_is_told_and_left_out():
    one, four = (np.full(SIZE, value, np.float32) for value in (1, 4))
    total = ExactSum.empty(SIZE)
    assert total.add_all([(one, 1.0), (four, 0.5)], 2 * math.sqrt(SIZE)) == {
        1: pytest.approx(4 * math.sqrt(SIZE))
    }
    assert (total.mean() == 1.0).all()
    assert total.weight == 1.0


def test_one_bad_weight_or_shape_leaves_the_whole_batch_out():
    total = ExactSum.empty(SIZE)
    sound = np.ones(SIZE, np.float32)
    for bad in ((sound, 2.0), (sound[1:], 1.0)):
        with pytest.raises(LocalProtocolError):
            total.add_all([(sound, 1.0), bad])
    assert (total.count, total.weight) == (0, 0.0)
    assert not total.sum().any()


def test_the_largest_term_is_let_in_even_where_a_block_is_full_of_it():
    full = np.full(SIZE, 32.0, np.float32)
    total = sum_of([(full, 1.0)] * 3)
    assert (total.sum() == 96.0).all()
    with pytest.raises(LocalProtocolError):
        total.add(np.nextafter(full, np.float32(33)), 1.0)


@pytest.mark.parametrize("weight", [0.0, -0.5, 1.0000001, math.nan, math.inf, 1e-300])
def test_absurd_weights_are_refused(weight):
    with pytest.raises(LocalProtocolError, match="weight"):
        ExactSum.empty(2).add(np.zeros(2, np.float32), weight)


@pytest.mark.parametrize(
    "vector",
    [np.zeros(3, np.float32), np.zeros(2), np.zeros((2, 1), np.float32), np.zeros(0, np.float32)],
    ids=["long", "float64", "column", "empty"],
)
def test_other_shapes_and_types_are_refused_not_broadcast(vector):
    with pytest.raises(LocalProtocolError, match="sum takes"):
        ExactSum.empty(2).add(vector, 1.0)


def test_as_many_reports_as_promised_cannot_overflow():
    largest = np.array([32.0, -32.0], np.float32)
    total = ExactSum.empty(2)
    for _ in range(MAX_TERMS):
        total.add(largest, 1.0)
    assert total.sum().tolist() == [32.0 * MAX_TERMS, -32.0 * MAX_TERMS]
    assert total.mean().tolist() == [32.0, -32.0]
    with pytest.raises(LocalProtocolError, match="at most"):
        total.add(largest, 1.0)


def test_the_mean_of_nothing_is_refused():
    with pytest.raises(LocalProtocolError, match="no reports"):
        ExactSum.empty(2).mean()


def test_reading_the_mean_does_not_disturb_the_sum():
    terms = random_terms(4, 100)
    total = ExactSum.empty(100)
    for vector, weight in terms:
        total.add(vector, weight)
        total.mean()
    assert total.mean().tobytes() == sum_of(terms).mean().tobytes()


@pytest.mark.parametrize("size", [0, 1, 1000, BLOCK, BLOCK + 1, 9 * BLOCK - 1, 20 * BLOCK + 7])
def test_threads_and_batches_give_the_same_bits(size):
    terms = random_terms(10, size)
    with ThreadPoolExecutor(4) as pool:
        total = ExactSum.empty(size, pool.map)
        assert total.add_all(terms[:7]) == {}
        assert total.add_all(terms[7:]) == {}
        assert total.mean().tobytes() == sum_of(terms).mean().tobytes()


def test_the_door_goes_by_the_very_norm_that_the_sum_goes_by():
    """Else a report on the edge would be welcome at one and not at the other."""
    vector, _ = random_terms(1, 11 * BLOCK + 77)[0]
    norm = sound_norm(vector)
    with ThreadPoolExecutor(4) as pool:
        assert sound_norm(vector, pool.map) == norm
        for run in (map, pool.map):
            total = ExactSum.empty(vector.size, run)
            assert total.add_all([(vector, 1.0)], norm) == {}
            assert total.add_all([(vector, 1.0)], math.nextafter(norm, 0)) == {0: norm}


def test_threads_warn_of_nothing_when_a_value_overflows():
    with ThreadPoolExecutor(4) as pool, warnings.catch_warnings():
        warnings.simplefilter("error")
        total = ExactSum.empty(SIZE, pool.map)
        assert total.add_all([(np.full(SIZE, 1e30, np.float32), 1.0)]) == {0: math.inf}


def test_an_error_in_a_stripe_is_not_swallowed(monkeypatch):
    monkeypatch.setattr(np, "multiply", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ExactSum.empty(100).add(np.ones(100, np.float32), 1.0)
