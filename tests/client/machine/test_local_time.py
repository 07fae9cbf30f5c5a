"""Schedules follow the zone of TZ, else the machine's, on the days of clock changes too."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from nomoat.client.machine.probes import SystemZone, local_now
from nomoat.client.machine.weekly_schedule import parse_week

BERLIN = ZoneInfo("Europe/Berlin")
RULE = "CET-1CEST,M3.5.0,M10.5.0/3"
FILE = next((p for p in ("/usr/share/zoneinfo/Europe/Berlin",) if Path(p).exists()), None)
NAMES = ["Europe/Berlin", ":Europe/Berlin", RULE, *([FILE, f":{FILE}"] if FILE else [])]
POSIX = pytest.mark.skipif(not hasattr(time, "tzset"), reason="the C library has no tzset here")
CHANGES = ("2026-03-28", "2026-03-29", "2026-10-24", "2026-10-25", "2026-07-01", "2026-12-31")


@pytest.fixture(autouse=True)
def zone_again() -> Iterator[None]:
    before = os.environ.get("TZ")
    yield
    os.environ.pop("TZ", None)
    if before is not None:
        os.environ["TZ"] = before
    if hasattr(time, "tzset"):
        time.tzset()


def choose(name: str) -> None:
    os.environ["TZ"] = name
    if hasattr(time, "tzset"):
        time.tzset()


def half_hours(day: str) -> list[datetime]:
    start = datetime.fromisoformat(day).replace(tzinfo=UTC) - timedelta(hours=4)
    return [start + timedelta(minutes=30 * n) for n in range(64)]


@POSIX
@pytest.mark.parametrize("name", NAMES)
def test_local_time_is_that_of_tz(name: str) -> None:
    choose(name)
    for day in CHANGES:
        for moment in half_hours(day):
            here, there = local_now(moment.timestamp()), moment.astimezone(BERLIN)
            assert here.replace(tzinfo=None) == there.replace(tzinfo=None)
            assert (here.fold, here.utcoffset()) == (there.fold, there.utcoffset())


def test_an_empty_tz_is_utc() -> None:
    choose("")
    assert local_now(1e9).utcoffset() == timedelta(0)


@POSIX
@pytest.mark.parametrize("name", ["Europe/Berlin", RULE])
def test_quiet_hours_begin_and_end_by_the_wall_clock_when_clocks_change(name: str) -> None:
    choose(name)
    quiet = parse_week({"all": ["01:30-03:30", "22:00-06:00"]})
    for day in CHANGES:
        for moment in half_hours(day)[4:28]:  # the night of the change, and the hours around it
            here, there = local_now(moment.timestamp()), moment.astimezone(BERLIN)
            assert quiet.covers(here) == quiet.covers(there)
            ends, expected = quiet.next_change(here), quiet.next_change(there)
            assert ends is not None
            assert expected is not None
            assert ends.timestamp() == expected.timestamp()


@POSIX
def test_a_wall_time_that_is_skipped_is_as_zoneinfo_has_it() -> None:
    choose(RULE)
    for fold in (0, 1):
        wall = datetime(2026, 3, 29, 2, 30, fold=fold)
        ours, theirs = wall.replace(tzinfo=SystemZone()), wall.replace(tzinfo=BERLIN)
        assert ours.utcoffset() == theirs.utcoffset()
