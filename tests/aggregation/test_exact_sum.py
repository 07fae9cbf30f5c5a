"""The sum's bits depend on what was added, never on the order; bad terms leave no trace."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nomoat.aggregation.errors import LocalProtocolError
from nomoat.aggregation.exact_sum import MAX_TERMS, ExactSum

SIZE = 70_001  # more than two blocks, the last one odd


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


@pytest.mark.parametrize("place", [0, 40_000, SIZE - 1])
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


def test_changing_a_vector_after_it_was_added_changes_nothing():
    vector = np.ones(10, np.float32)
    total = ExactSum.empty(10)
    total.add(vector, 1.0)
    vector[:] = 5
    assert total.mean().tolist() == [1.0] * 10


def test_checked_vectors_are_summed_alike():
    terms = random_terms(11)
    total = ExactSum.empty(SIZE)
    for vector, weight in terms:
        vector.setflags(write=False)
        total.add(vector, weight, checked=True)
    assert total.mean().tobytes() == sum_of(terms).mean().tobytes()


@pytest.mark.parametrize("size", [1, 1000, 2**15, 2**15 + 1, 9 * 2**15 - 1, 20 * 2**15 + 7])
def test_threads_give_the_same_bits(size):
    terms = random_terms(10, size)
    with ThreadPoolExecutor(4) as pool:
        total = ExactSum.empty(size, pool.map)
        for vector, weight in terms:
            total.add(vector, weight)
        assert total.mean().tobytes() == sum_of(terms).mean().tobytes()


def test_an_error_in_a_stripe_is_not_swallowed(monkeypatch):
    total = ExactSum.empty(100)
    total.add(np.ones(100, np.float32), 1.0)
    monkeypatch.setattr(np, "multiply", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        total.mean()


def test_few_waiting_bytes_and_many_reports_give_the_same_bits(monkeypatch):
    terms = random_terms(21)
    wanted = sum_of(terms).mean().tobytes()
    for most in (1, 300_000):
        monkeypatch.setattr("nomoat.aggregation.exact_sum._MAX_WAITING_BYTES", most)
        assert sum_of(terms).mean().tobytes() == wanted


def test_reports_that_wait_are_bounded():
    """A coordinator with many volunteers must not hold all their reports at once."""
    total = ExactSum.empty(1000)
    for vector, weight in random_terms(50, 1000):
        total.add(vector, weight)
        assert len(total._waiting) < 8
