"""A secret that is given away holds a version, an answer that falls does, wandering does not."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nomoat.server.release.canary_gate import (
    FEWEST,
    AnswerReading,
    CanaryRule,
    SecretReading,
    fallen,
    faults,
    given_away,
)

NATS = st.floats(-1e4, 0)
HISTORY = st.lists(NATS, max_size=12)
RULE = CanaryRule(10.0, 3.0)


@given(now=NATS, before=HISTORY, less=st.floats(0, 1e3))
def test_who_falls_is_found_and_who_falls_further_too(
    now: float, before: list[float], less: float
) -> None:
    reading, lower = AnswerReading(now, before), AnswerReading(now - less, before)
    assert fallen(lower, RULE) >= fallen(reading, RULE)
    if reading.fall <= RULE.fall_nats:
        assert not fallen(reading, RULE)
    if reading.fall > 2 * RULE.fall_nats:  # no wandering makes more room than that
        assert fallen(reading, RULE)


@given(now=NATS, before=HISTORY, shift=st.floats(-1e3, 1e3))
def test_only_changes_count(now: float, before: list[float], shift: float) -> None:
    moved = AnswerReading(now + shift, [one + shift for one in before])
    assert math.isclose(moved.fall, AnswerReading(now, before).fall, abs_tol=1e-6)


@given(step=st.floats(0.5, 2.9), length=st.integers(2, 40))
def test_many_small_steps_add_up_to_a_fall(step: float, length: int) -> None:
    path = [-step * n for n in range(length)]
    found = [fallen(AnswerReading(path[n], path[:n]), RULE) for n in range(1, length)]
    assert found == sorted(found)
    assert found.count(False) == pytest.approx(RULE.fall_nats / step, abs=1) or not any(found)
    assert any(found) or -path[-1] <= RULE.fall_nats + 1e-6


def test_an_answer_that_always_wandered_may_wander_a_little_more() -> None:
    wanders = [-5.0, -6.0, -5.0, -6.0, -5.0, -6.0]
    assert len(wanders) > FEWEST
    assert fallen(AnswerReading(-8.5, [-5.0] * 6), RULE)
    assert not fallen(AnswerReading(-8.5, wanders), RULE)
    assert fallen(AnswerReading(-11.5, wanders), RULE)


def test_what_is_not_finite_is_found_and_a_first_version_has_nothing_to_fall_from() -> None:
    assert fallen(AnswerReading(-math.inf, [-1.0]), RULE)
    assert fallen(AnswerReading(math.nan, []), RULE)
    assert not fallen(AnswerReading(-400.0, []), RULE)
    assert not fallen(AnswerReading(-1.0, [math.nan]), RULE)


def test_a_secret_is_given_away_above_the_bits_allowed_unless_the_base_knew_it() -> None:
    assert not given_away(SecretReading(10.0), RULE)
    assert given_away(SecretReading(10.1), RULE)
    assert given_away(SecretReading(10.1, 3.0), RULE)
    assert not given_away(SecretReading(30.0, 12.0), RULE)


def test_faults_are_named_the_worst_first() -> None:
    found = faults(
        {"secret ab": SecretReading(12.0, 0.5), "secret cd": SecretReading(1.0)},
        {"line 3": AnswerReading(-30.0, [-2.0]), "line 4": AnswerReading(-3.0, [-2.0])},
        RULE,
    )
    assert found == (
        "line 3 fell by 28.0 nats (3 allowed)",
        "secret ab is given away (12.0 bits, 10 allowed)",
    )
