"""A coordinator whose own clock is wrong says so, once for all members who show it."""

from __future__ import annotations

from nomoat.server.fleet.clock_doubts import AGAIN_S, LOOK_BACK_S, ClockDoubts

DAY_S = 86_400


def test_a_clock_is_doubted_when_several_members_differ_from_it_by_the_same() -> None:
    doubts = ClockDoubts()
    assert doubts.note("ada", -DAY_S, 0.0) is None
    assert doubts.note("ada", -DAY_S, 1.0) is None  # one member's clock is its own affair
    told = doubts.note("ben", -DAY_S - 2, 2.0)
    assert told is not None
    assert "this machine's clock is 86402 s ahead of those of 2 members" in told
    ahead = ClockDoubts()
    ahead.note("ada", 3600, 0.0)
    assert "3600 s behind those of 2" in (ahead.note("ben", 3600, 1.0) or "")


def test_members_whose_clocks_differ_otherwise_or_long_ago_say_nothing_about_this_one() -> None:
    doubts = ClockDoubts()
    assert doubts.note("ada", -DAY_S, 0.0) is None
    assert doubts.note("ben", 3600, 1.0) is None
    assert doubts.note("cyd", -DAY_S, 1.0 + LOOK_BACK_S) is None


def test_the_line_comes_once_in_a_while_however_often_members_try() -> None:
    doubts = ClockDoubts()
    lines = [doubts.note(f"vol{n % 5}", -DAY_S, float(n)) for n in range(int(AGAIN_S) + 10)]
    assert len([line for line in lines if line is not None]) == 2


def test_a_clock_that_is_set_once_more_and_wrong_again_is_told_at_once() -> None:
    doubts = ClockDoubts()
    doubts.note("ada", 3600, 0.0)
    assert doubts.note("ben", 3600, 1.0) is not None
    assert doubts.note("ada", -DAY_S, 60.0) is None
    assert "86400 s ahead of those of 2" in (doubts.note("ben", -DAY_S, 61.0) or "")
