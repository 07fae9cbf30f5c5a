"""Trap 10: a schedule over global rounds reaches its maximum and wastes no round at nothing."""

from __future__ import annotations

import pytest

from nomoat.server.rounds.learning_rate import FLOOR, learning_rate

SCHEDULES = ("constant", "cosine", "warmup")


def rates(schedule: str, rounds: int) -> list[float]:
    return [learning_rate(schedule, 0.02, t, rounds) for t in range(1, rounds + 1)]  # type: ignore[arg-type]


@pytest.mark.parametrize("rounds", [1, 2, 3, 10, 100])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_reaches_its_maximum_and_never_ends_at_a_wasted_minimum(
    schedule: str, rounds: int
) -> None:
    found = rates(schedule, rounds)
    assert max(found) == pytest.approx(0.02)
    assert min(found) > FLOOR * 0.02 or (schedule == "warmup" and rounds >= 10)
    assert all(rate > 0 for rate in found)


def test_a_cosine_falls_from_the_first_round_on() -> None:
    found = rates("cosine", 10)
    assert found[0] == pytest.approx(0.02)
    assert found == sorted(found, reverse=True)
    assert found[5] == pytest.approx(0.02 * (FLOOR + 1) / 2)  # half-way


def test_a_warmup_rises_in_equal_steps_and_stays() -> None:
    assert rates("warmup", 10)[:3] == pytest.approx([0.01, 0.02, 0.02])
    assert rates("warmup", 20)[:5] == pytest.approx([0.005, 0.01, 0.015, 0.02, 0.02])
    assert set(rates("warmup", 20)[4:]) == {0.02}


def test_a_constant_is_constant() -> None:
    assert set(rates("constant", 7)) == {0.02}
