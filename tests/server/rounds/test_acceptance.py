"""The community's adapter only gets better, and a minority of liars has no say in it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nomoat.server.rounds import acceptance
from nomoat.server.rounds.acceptance import (
    LEAST_NOISE,
    MOST_NOISE,
    Acceptance,
    HeldOutLosses,
    noise_of,
)

LOSS = st.floats(0.0, 1e4)


def judge(
    best: Mapping[str, float],
    candidate: Mapping[str, float],
    tolerance: float | None = None,
    evaluation: tuple[float | None, float | None] = (None, None),
) -> Acceptance:
    before, after = evaluation
    return acceptance.judge(HeldOutLosses(best, before), HeldOutLosses(candidate, after), tolerance)


@given(
    honest=st.lists(st.floats(0.5, 8.0), min_size=1, max_size=8),
    rise=st.sampled_from([0.9, 1.0, 1.04, 1.06, 1.5]),
    lies=st.lists(st.tuples(LOSS, LOSS), max_size=7),
)
def test_fewer_than_half_lying_neither_block_a_good_adapter_nor_carry_a_bad_one(
    honest: list[float], rise: float, lies: list[tuple[float, float]]
) -> None:
    lies = lies[: len(honest) - 1]  # the truth is a majority
    previous = {f"h{i}": loss for i, loss in enumerate(honest)}
    candidate = {f"h{i}": loss * rise for i, loss in enumerate(honest)}
    previous |= {f"l{i}": before for i, (before, _) in enumerate(lies)}
    candidate |= {f"l{i}": after for i, (_, after) in enumerate(lies)}
    assert judge(previous, candidate, 0.05).accepted is (rise < 1.05)


@pytest.mark.parametrize(("loss", "accepted"), [(1.0, True), (1.0499, True), (1.0501, False)])
def test_a_rise_up_to_the_tolerance_is_accepted(loss: float, accepted: bool) -> None:
    assert judge({"ada": 1.0}, {"ada": loss}, 0.05).accepted is accepted


def test_only_volunteers_in_both_count() -> None:
    verdict = judge({"ada": 1.0, "gone": 0.1}, {"ada": 0.9, "new": 50.0}, 0.0)
    assert verdict.accepted


def test_without_anything_to_compare_with_a_first_adapter_is_accepted() -> None:
    assert judge({}, {"ada": 7.0}, 0.0).accepted
    assert judge({}, {}, 0.0).accepted
    assert judge({"ada": 1.0}, {"bob": 7.0}, 0.0).accepted


def test_what_nobody_measured_does_not_replace_what_was_measured() -> None:
    verdict = judge({"ada": 1.0}, {}, 0.05)
    assert not verdict.accepted
    assert "nobody" in verdict.reason


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_never_accepted(loss: float) -> None:
    assert not judge({"ada": 1.0}, {"ada": loss}, 0.05).accepted
    assert not judge({}, {"ada": loss}, 0.05).accepted


def test_a_previous_loss_of_zero_does_not_divide_by_it() -> None:
    assert judge({"ada": 0.0}, {"ada": 0.0}, 0.05).accepted
    assert not judge({"ada": 0.0}, {"ada": 1.0}, 0.05).accepted


def test_the_order_in_which_losses_arrived_does_not_matter() -> None:
    names = ["a", "b", "c", "d"]
    previous = dict.fromkeys(names, 1.0)
    forward = {name: 1 + i / 7 for i, name in enumerate(names)}
    backward = dict(reversed(forward.items()))
    assert judge(previous, forward, 0.05) == judge(previous, backward, 0.05)


def test_a_rise_on_the_evaluation_split_is_refused_whatever_volunteers_say() -> None:
    better = {"ada": 0.5, "ben": 0.5}
    verdict = judge({"ada": 1.0, "ben": 1.0}, better, 0.05, (1.0, 1.0501))
    assert not verdict.accepted
    assert "evaluation split" in verdict.reason
    assert judge({"ada": 1.0, "ben": 1.0}, better, 0.05, (1.0, 1.0499)).accepted


def test_a_fall_on_the_evaluation_split_does_not_carry_what_volunteers_measured_worse() -> None:
    assert not judge({"ada": 1.0}, {"ada": 2.0}, 0.05, (1.0, 0.1)).accepted


def test_the_evaluation_split_alone_is_enough_to_judge_by() -> None:
    assert judge({"ada": 1.0}, {}, 0.05, (1.0, 0.9)).accepted
    assert not judge({"ada": 1.0}, {}, 0.05, (1.0, None)).accepted
    assert not judge({}, {}, 0.05, (1.0, None)).accepted
    assert not judge({}, {}, 0.05, (None, math.nan)).accepted


def losses(*values: float) -> dict[str, float]:
    return {f"v{place:02d}": value for place, value in enumerate(values)}


@given(
    count=st.integers(1, 40),
    steps=st.lists(st.floats(0.001, 0.08), min_size=10, max_size=10),
    disagreement=st.floats(0.0, 3.0),
    noise=st.floats(0.0, 0.02),
    seed=st.integers(0, 2**32 - 1),
)
def test_ten_rounds_that_are_each_a_little_worse_do_not_end_much_worse(
    count: int, steps: list[float], disagreement: float, noise: float, seed: int
) -> None:
    """Under a tolerance against the version before, ten rounds at 4.9 % lost 61 %."""
    rng = np.random.default_rng(seed)
    start = rng.uniform(1.0, 5.0, count)
    suffers = 1 + disagreement * rng.uniform(-0.3, 1.0, count)  # not everybody, and not alike
    best = HeldOutLosses(losses(*start))
    stands, measured = 1.0, start
    for step in steps:
        worse = stands + step
        found = start * (1 + (worse - 1) * suffers) * (1 + noise * rng.standard_normal(count))
        verdict = acceptance.judge(best, HeldOutLosses(losses(*found)))
        best = verdict.best
        if verdict.accepted:
            stands, measured = worse, found
    assert np.median(measured / start) <= 1 + MOST_NOISE + 1e-9
    honest = [after / before for before, after in zip(start, measured, strict=True)]
    assert np.median(honest) < 1.5


@pytest.mark.parametrize("count", [2, 3, 5, 10, 50])
def test_honest_noise_is_not_refused_for_ever(count: int) -> None:
    """Two hundred versions that are all as good: the luckiest one does not shut out the others."""
    rng = np.random.default_rng(7)
    start = rng.uniform(1.0, 5.0, count)
    best, accepted = HeldOutLosses(losses(*start)), []
    for _ in range(200):
        found = start * (1 + 0.01 * rng.standard_normal(count))
        verdict = acceptance.judge(best, HeldOutLosses(losses(*found)))
        best = verdict.best
        accepted.append(verdict.accepted)
    assert np.mean(accepted) > 0.5
    assert all(any(accepted[begin : begin + 20]) for begin in range(180))


@pytest.mark.parametrize("count", [2, 5, 50])
def test_slow_progress_below_the_noise_adds_up_and_is_kept(count: int) -> None:
    rng = np.random.default_rng(11)
    start = rng.uniform(1.0, 5.0, count)
    best, stands = HeldOutLosses(losses(*start)), 1.0
    for _ in range(60):
        better = stands * 0.997
        found = start * better * (1 + 0.01 * rng.standard_normal(count))
        verdict = acceptance.judge(best, HeldOutLosses(losses(*found)))
        best = verdict.best
        stands = better if verdict.accepted else stands
    assert stands < 0.9
    assert np.median([best.volunteers[v] / s for v, s in losses(*start).items()]) < 0.92


def test_the_tolerance_follows_from_how_much_evaluators_disagree() -> None:
    agreed = [0.010, 0.011, 0.009, 0.010, 0.012]
    apart = [0.010, 0.060, -0.04, 0.030, -0.02]
    assert noise_of(agreed) < 0.010 < noise_of(apart)
    assert not judge(losses(*[1.0] * 5), losses(*[1 + d for d in agreed])).accepted
    assert judge(losses(*[1.0] * 5), losses(*[1 + d for d in apart])).accepted
    assert noise_of([0.3] * 5) == LEAST_NOISE
    assert noise_of([0.3]) == MOST_NOISE
    assert noise_of([-3.0, 5.0, 0.0]) == MOST_NOISE


@given(
    honest=st.lists(st.floats(-0.02, 0.02), min_size=3, max_size=15),
    lies=st.lists(st.floats(-0.9, 1e4), max_size=14),
)
def test_a_minority_of_liars_cannot_make_the_noise_anything_it_likes(
    honest: list[float], lies: list[float]
) -> None:
    """Most deviations from the median are within the honest ones' range, whatever lies say."""
    lies = lies[: (len(honest) - 1) // 2]
    together = [*honest, *lies]
    widest = 2.93 * 1.2533 * 1.4826 * 1.5 * (max(honest) - min(honest)) / math.sqrt(len(together))
    assert noise_of(together) <= max(LEAST_NOISE, widest)


def test_a_version_within_the_noise_leaves_the_best_one_as_it_is_and_adds_who_is_new() -> None:
    best = losses(2.0, 2.0, 2.0)
    found = {**losses(2.01, 1.99, 2.0), "new": 4.0}
    verdict = judge(best, found)
    assert verdict.accepted
    assert verdict.best.volunteers == {**best, "new": 4.0}
    better = {"v00": 1.5, "v01": 1.52, "new": 3.0}
    verdict = judge(verdict.best.volunteers, better)
    assert verdict.best.volunteers == better


def test_the_best_loss_on_the_evaluation_split_is_kept() -> None:
    best = HeldOutLosses(losses(2.0, 2.0), 1.0)
    for own, kept in ((1.02, 1.0), (0.9, 0.9), (None, 1.0)):
        verdict = acceptance.judge(best, HeldOutLosses(losses(1.5, 1.5), own))
        assert (verdict.accepted, verdict.best.evaluation) == (True, kept)
    refused = acceptance.judge(best, HeldOutLosses(losses(1.5, 1.5), 1.06))
    assert not refused.accepted
    assert refused.best == best
