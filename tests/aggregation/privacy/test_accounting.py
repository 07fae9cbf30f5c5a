"""ε is what dp-accounting says it is, and a plan of noise that cannot work names one that can."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest

from nomoat.aggregation.errors import UsageError
from nomoat.aggregation.privacy.accounting import (
    MOST_EPSILON,
    delta_of,
    epsilon,
    noise_multiplier,
)
from nomoat.aggregation.privacy.plan import Budget, check

VECTORS = json.loads(
    (Path(__file__).parents[2] / "vectors" / "gaussian_accounting.json").read_text()
)


@pytest.mark.parametrize("vector", VECTORS["vectors"])
def test_epsilon_is_dp_accountings(vector: dict[str, float]) -> None:
    found = epsilon(vector["noise_multiplier"], vector["delta"], int(vector["participations"]))
    assert found == pytest.approx(vector["epsilon"], rel=1e-6)
    assert found == pytest.approx(vector["epsilon_pld"], abs=1e-5)


@pytest.mark.parametrize("goal", [0.1, 1.0, 8.0, 100.0])
@pytest.mark.parametrize("sums", [1, 10, 1000])
def test_the_noise_that_a_goal_needs_comes_to_that_goal(goal: float, sums: int) -> None:
    noise = noise_multiplier(goal, 1e-6, sums)
    assert epsilon(noise, 1e-6, sums) == pytest.approx(goal, rel=1e-6)
    assert epsilon(0.99 * noise, 1e-6, sums) > goal


def test_delta_is_the_largest_difference_of_probabilities() -> None:
    """Against the definition, summed over a fine grid."""
    scale, e, step = 1.5, 0.7, 1e-3
    total = 0.0
    for i in range(-12_000, 12_000):
        x = i * step

        def density(mean: float, x: float = x) -> float:
            spread = math.sqrt(2 * math.pi) * scale
            return math.exp(-((x - mean) ** 2) / (2 * scale**2)) / spread

        total += max(0.0, density(1.0) - math.exp(e) * density(0.0)) * step
    assert delta_of(scale, e) == pytest.approx(total, rel=1e-3)


def test_no_noise_hides_nothing_and_a_goal_that_cannot_be_is_refused() -> None:
    assert epsilon(0.0, 1e-6) == MOST_EPSILON
    for bad in ((0.0, 1e-6, 1), (8.0, 0.0, 1), (8.0, 1.0, 1), (8.0, 1e-6, 0)):
        with pytest.raises(UsageError, match="no noise makes"):
            noise_multiplier(*bad)


def test_a_plan_that_drowns_the_adapter_names_the_rank_and_the_cohort_that_fit() -> None:
    budget = Budget(8.0, 1e-6, 6)
    assert check(budget, 117_120, 8, 1000, 400) == pytest.approx(1.6, rel=1e-2)
    with pytest.raises(UsageError) as refused:
        check(budget, 117_120, 8, 400, 300)
    ranks, cohort = map(int, re.findall(r"rank of (\d+) .* sums of (\d+)", str(refused.value))[0])
    assert check(budget, 117_120 * ranks // 8, ranks, 400, 300)
    assert check(budget, 117_120, 8, cohort, cohort * 3 // 4 + 1)
    with pytest.raises(UsageError):
        check(budget, 117_120 * (ranks + 1) // 8, ranks + 1, 400, 300)
    with pytest.raises(UsageError):
        check(budget, 117_120, 8, cohort - 2, (cohort - 2) * 3 // 4)


def test_below_three_hundred_honest_volunteers_nothing_is_claimed() -> None:
    with pytest.raises(UsageError, match="none is claimed"):
        check(Budget(8.0, 1e-6, 1), 10, 1, 1000, 299)
