"""A robust mean stays near the honest vectors whatever f others are; the stock mean does not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nomoat.aggregation.errors import LocalProtocolError
from nomoat.aggregation.robust import mean as module
from nomoat.aggregation.robust.mean import (
    TooManyFaults,
    clipping,
    faults_of,
    nearest,
    robust_mean,
    trimmed_mean,
)


def drawn(count: int, length: int = 40, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(1.0, 0.1, length).astype(np.float32) for _ in range(count)]


def twin(vectors: list[np.ndarray], f: int) -> np.ndarray:
    """The same, one vector and one coordinate at a time, as the papers write it."""
    n = len(vectors)
    longest_first = sorted(vectors, key=lambda x: -float(np.linalg.norm(x)))
    limit = np.linalg.norm(longest_first[int(2 * f / n * (n - f))].astype(float))
    scaled = [v.astype(float) * min(1.0, limit / np.linalg.norm(v.astype(float))) for v in vectors]
    mixed = []
    for centre in scaled:
        by_distance = sorted(scaled, key=lambda x: float(np.linalg.norm(x - centre)))
        mixed.append(np.mean(by_distance[: n - f], axis=0))
    columns = [sorted(column)[f : n - f] for column in np.array(mixed).T.tolist()]
    return np.array([np.mean(column) for column in columns], np.float32)


@pytest.mark.parametrize(("n", "f"), [(1, 0), (2, 0), (3, 1), (5, 2), (8, 1), (24, 5)])
def test_it_is_what_the_papers_write_down(n: int, f: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK", 7)  # blocks of columns, the last one short
    vectors = drawn(n)
    vectors[0] = vectors[0] * np.float32(5)
    np.testing.assert_allclose(robust_mean(vectors, f), twin(vectors, f), rtol=1e-5, atol=1e-6)


LIES = {
    "eight times too large": lambda x: x * 8,
    "the other way": lambda x: x * -8,
    "enormous": lambda x: x * 1e12,
    "nothing": lambda x: x * 0,
    "one value": lambda x: np.where(np.arange(len(x)) == 3, 1e6, x),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
@pytest.mark.parametrize(("n", "f"), [(3, 1), (8, 1), (24, 5)])
def test_lies_move_it_less_than_honest_vectors_differ(n: int, f: int, lie: object) -> None:
    vectors = drawn(n)
    honest = np.mean(vectors[f:], axis=0)
    for place in range(f):
        vectors[place] = lie(vectors[place]).astype(np.float32)  # type: ignore[operator]
    spread = max(float(np.linalg.norm(v - honest)) for v in vectors[f:])
    assert np.linalg.norm(robust_mean(vectors, f) - honest) < spread
    if lie is not LIES["nothing"]:
        assert np.linalg.norm(np.mean(vectors, axis=0) - honest) > spread


@given(st.integers(3, 12), st.integers(0, 2**32 - 1))
def test_the_order_of_vectors_does_not_matter(n: int, seed: int) -> None:
    vectors, rng = drawn(n, 9, seed), np.random.default_rng(seed)
    f = int(rng.integers(0, (n + 1) // 2))
    turned = [vectors[i] for i in rng.permutation(n)]
    np.testing.assert_allclose(robust_mean(turned, f), robust_mean(vectors, f), rtol=1e-5)


def test_equal_vectors_are_their_own_mean_and_without_lies_it_is_the_mean() -> None:
    (one,) = drawn(1)
    np.testing.assert_allclose(robust_mean([one] * 5, 2), one, rtol=1e-6)
    vectors = drawn(6)
    np.testing.assert_allclose(robust_mean(vectors, 0), np.mean(vectors, axis=0), rtol=1e-6)
    nothing = [np.zeros(4, np.float32)] * 3
    assert not robust_mean(nothing, 1).any()


@pytest.mark.parametrize(("n", "f"), [(2, 1), (4, 2), (5, 3), (3, -1)])
def test_half_of_them_or_more_are_refused(n: int, f: int) -> None:
    with pytest.raises(TooManyFaults):
        robust_mean(drawn(n), f)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(value: float) -> None:
    vectors = drawn(5)
    vectors[2][1] = value
    with pytest.raises(LocalProtocolError, match="not finite"):
        robust_mean(vectors, 1)


def test_each_of_the_three_does_its_part() -> None:
    assert clipping(np.array([1.0, 2.0, 9.0, 3.0, 0.0]), 1).tolist() == [1, 1, 1 / 3, 1, 1]
    products = np.array([[1.0, 1.0, -8.0], [1.0, 1.0, -8.0], [-8.0, -8.0, 64.0]])
    assert nearest(products, 1).tolist() == [[0.5, 0.5, 0], [0.5, 0.5, 0], [0.5, 0, 0.5]]
    assert trimmed_mean(np.array([[1.0], [2.0], [99.0]]), 1).tolist() == [2.0]


def test_a_share_is_so_many_at_most() -> None:
    assert [faults_of(0.2, n) for n in (5, 8, 10, 24)] == [1, 2, 2, 5]
    assert faults_of(0.0, 8) == 0
