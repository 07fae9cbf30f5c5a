"""A peer gets its burst, then its rate, and cannot make the table grow."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nomoat.server.port.rate_limit import Rate, RateLimit


def test_a_burst_is_allowed_and_then_the_rate() -> None:
    pace = RateLimit(Rate(per_s=2, burst=5))
    assert [pace.allow("a", 0.0) for _ in range(6)] == [True] * 5 + [False]
    assert pace.allow("b", 0.0)
    assert [pace.allow("a", 1.0) for _ in range(3)] == [True, True, False]


@given(st.lists(st.floats(0, 5), max_size=60))
def test_over_any_time_no_more_than_burst_plus_rate_passes(gaps: list[float]) -> None:
    pace, now, passed = RateLimit(Rate(3, 4)), 0.0, 0
    for gap in gaps:
        now += gap
        passed += pace.allow("a", now)
    assert passed <= 4 + 3 * now + 1e-6


def test_a_clock_that_jumps_back_gives_nothing_away() -> None:
    pace = RateLimit(Rate(1, 1))
    assert pace.allow("a", 100.0)
    assert not pace.allow("a", 50.0)


def test_the_table_of_peers_is_bounded() -> None:
    pace = RateLimit(Rate(1, 1), max_peers=10)
    for peer in range(100):
        pace.allow(str(peer), 0.0)
    assert len(pace._buckets) == 10
