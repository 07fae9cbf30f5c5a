"""A bound on norms: who is within it is untouched, who is not is scaled, and a mean shows a lie."""

from __future__ import annotations

import numpy as np
import pytest

from nomoat.aggregation.sums.norm_bound import NormBound, norm_of


def drawn(seed: int, size: int, norm: float) -> np.ndarray:
    vector = np.random.default_rng(seed).normal(size=size)
    return (vector * norm / np.linalg.norm(vector)).astype(np.float32)


def test_an_update_within_the_bound_is_the_very_same() -> None:
    vector = drawn(0, 100, 1.0)
    assert NormBound(1.01, 100).clip(vector) is vector


@pytest.mark.parametrize("factor", [1.5, 8.0, 1e6])
def test_a_larger_update_keeps_its_direction_and_gets_the_bounds_norm(factor: float) -> None:
    vector = drawn(1, 100, factor)
    before = vector.copy()
    clipped = NormBound(1.0, 100).clip(vector)
    assert norm_of(clipped) == pytest.approx(1.0, rel=1e-5)
    assert clipped @ vector / (norm_of(clipped) * norm_of(vector)) == pytest.approx(1.0, abs=1e-6)
    assert np.array_equal(vector, before)  # the caller's is not written to


def test_what_is_no_change_of_the_adapter_is_neither_measured_nor_scaled() -> None:
    vector = np.concatenate([drawn(2, 50, 2.0), np.ones(8, np.float32)])
    clipped = NormBound(1.0, 50).clip(vector)
    assert norm_of(clipped[:50]) == pytest.approx(1.0, rel=1e-5)
    assert clipped[50:].tolist() == [1.0] * 8


def test_updates_within_the_bound_never_make_a_mean_that_is_refused() -> None:
    bound = NormBound(1.0, 64)
    for seed in range(20):
        updates = [drawn(100 * seed + i, 64, 1.0) for i in range(8)]
        assert bound.fault_of_mean(np.mean(updates, axis=0, dtype=np.float32)) is None
    assert bound.fault_of_mean(drawn(3, 64, 1.04)) is None


@pytest.mark.parametrize("bad", [1.06, 100.0, np.inf, np.nan])
def test_a_mean_beyond_the_bound_or_none_at_all_is_refused(bad: float) -> None:
    assert NormBound(1.0, 64).fault_of_mean(drawn(4, 64, 1.0) * np.float32(bad)) is not None


def test_the_norm_of_a_long_vector_is_that_of_its_parts() -> None:
    vector = drawn(5, (1 << 20) + 17, 3.0)
    assert norm_of(vector) == pytest.approx(3.0, rel=1e-6)
