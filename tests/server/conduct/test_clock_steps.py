"""Nobody is held for a coordinator's clock that was set, or for its machine's sleep."""

from __future__ import annotations

import pytest

from nomoat.server.conduct.clock_steps import ClockSteps
from nomoat.server.conduct.rules import SILENCES, Strike, StrikeKind, judge
from nomoat.server.rounds.machines.evidence import RoundEvidence

SILENT = RoundEvidence(silent=frozenset({"ada"}), heard=frozenset({"ben"}))


@pytest.mark.parametrize("step_s", [86_400.0, -3600.0, -86_400.0])
def test_silence_counts_in_no_round_in_which_the_clock_was_set(step_s: float) -> None:
    wall, steady = [1e9], [5.0]
    steps = ClockSteps(lambda: wall[0], lambda: steady[0])
    wall[0] += 90.0
    steady[0] += 90.0
    assert steps.excused(SILENT) == SILENT
    wall[0] += 90.0 + step_s
    steady[0] += 90.0
    excused = steps.excused(SILENT)
    assert not excused.silent
    assert excused.heard == SILENT.heard
    before = [Strike(n, StrikeKind.SILENCE, "ada", str(n)) for n in range(1, SILENCES)]
    assert "ada" in judge(9, SILENT, before).held
    assert not judge(9, excused, before).held
    assert steps.excused(SILENT) == SILENT  # it stays where it was set to


def test_a_clock_that_is_adjusted_little_by_little_excuses_nobody() -> None:
    wall = [1e9]
    steps = ClockSteps(lambda: wall[0], lambda: 0.0)
    for _ in range(20):
        wall[0] += 30.0
        assert steps.excused(SILENT) == SILENT
