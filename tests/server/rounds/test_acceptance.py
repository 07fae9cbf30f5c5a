"""The community's adapter only gets better, and a minority of liars has no say in it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nomoat.server.rounds.acceptance import judge

LOSS = st.floats(0.0, 1e4)


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
