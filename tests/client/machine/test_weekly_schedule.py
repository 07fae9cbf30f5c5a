from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nomoat.aggregation.errors import UsageError
from nomoat.client.machine.weekly_schedule import DAYS, Week, Window, always, never, parse_week

BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN)


def test_a_window_is_half_open_to_the_minute() -> None:
    week = parse_week({"mon": ["09:00-17:00"]})
    assert not week.covers(at("2026-11-23 08:59"))  # a Monday
    assert week.covers(at("2026-11-23 09:00"))
    assert week.covers(at("2026-11-23 16:59:59"))
    assert not week.covers(at("2026-11-23 17:00"))
    assert not week.covers(at("2026-11-24 12:00"))


def test_a_window_across_midnight_belongs_to_the_day_it_begins_on() -> None:
    week = parse_week({"fri": ["22:00-06:00"]})
    assert week.covers(at("2026-11-27 23:30"))
    assert week.covers(at("2026-11-28 05:59"))
    assert not week.covers(at("2026-11-28 06:00"))
    assert not week.covers(at("2026-11-28 23:00"))
    assert not week.covers(at("2026-11-27 05:00"))


def test_a_sunday_night_reaches_into_monday() -> None:
    week = parse_week({"sun": ["23:00-01:00"]})
    assert week.covers(at("2026-11-23 00:30"))
    assert not week.covers(at("2026-11-24 00:30"))


def test_wall_time_holds_on_the_night_that_is_an_hour_longer() -> None:
    week = parse_week({"all": ["02:00-03:00"]})
    twice = at("2026-10-25 02:30")
    assert week.covers(twice.replace(fold=0))
    assert week.covers(twice.replace(fold=1))
    end = week.next_change(twice.replace(fold=0))
    assert end is not None
    assert end.timestamp() - twice.replace(fold=0).timestamp() == 90 * 60


def test_a_window_in_the_hour_that_is_skipped_does_not_open_that_night() -> None:
    week = parse_week({"all": ["02:00-03:00"]})
    opening = week.next_change(at("2026-03-29 01:30"))
    assert opening is not None
    assert f"{opening:%m-%d %H:%M}" == "03-30 02:00"


def test_a_window_that_begins_in_the_skipped_hour_opens_after_it() -> None:
    week = parse_week({"all": ["02:30-05:00"]})
    opening = week.next_change(at("2026-03-29 01:30"))
    assert opening is not None
    assert f"{opening:%m-%d %H:%M}" == "03-29 03:00"


def test_always_and_never_never_change() -> None:
    now = at("2026-11-23 12:00")
    assert always().covers(now)
    assert not never().covers(now)
    assert always().next_change(now) is None
    assert never().next_change(now) is None


def test_the_next_opening_can_be_six_days_away() -> None:
    week = parse_week({"sun": ["10:00-11:00"]})
    opening = week.next_change(at("2026-11-23 12:00"))
    assert opening is not None
    assert f"{opening:%a %H:%M}" == "Sun 10:00"


windows = st.builds(Window, st.integers(0, 1439), st.integers(0, 1439))
weeks = st.builds(Week, st.tuples(*[st.lists(windows, max_size=2).map(tuple) for _ in DAYS]))


@settings(max_examples=60, deadline=None)
@given(weeks, st.integers(0, 400 * 24 * 60))
def test_next_change_is_the_first_minute_that_differs(week: Week, minutes: int) -> None:
    now = at("2026-01-01 00:00").astimezone(ZoneInfo("UTC")) + timedelta(minutes=minutes)
    now = now.astimezone(BERLIN)
    change = week.next_change(now)
    utc, walked = ZoneInfo("UTC"), None
    for step in range(1, 9 * 24 * 60):
        moment = (now.astimezone(utc) + timedelta(minutes=step)).astimezone(BERLIN)
        if week.covers(moment) != week.covers(now):
            walked = moment
            break
    assert (change and change.timestamp()) == (walked and walked.timestamp())


@pytest.mark.parametrize("text", ["9-17", "25:00-26:00", "10:61-11:00", "10:00", "", "24:00-01:00"])
def test_a_window_that_is_none_is_refused_by_day(text: str) -> None:
    with pytest.raises(UsageError, match="schedule, tue"):
        parse_week({"tue": [text]})


def test_midnight_can_be_written_as_24() -> None:
    assert parse_week({"mon": ["18:00-24:00"]}).covers(at("2026-11-23 23:59"))
    assert not parse_week({"mon": ["18:00-24:00"]}).covers(at("2026-11-24 00:00"))


def test_an_unknown_day_is_refused() -> None:
    with pytest.raises(UsageError, match="'montag' is no day"):
        parse_week({"montag": ["10:00-11:00"]})
