"""Windows of the week in local wall time: when training may run, and quiet hours.

A window belongs to the day on which it begins and may end on the next one. Wall time is what
people mean by "22:00", also on the two days a year on which a clock is moved.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Final

from nomoat.aggregation.errors import UsageError

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WINDOW: Final = re.compile(r"(\d{1,2}):(\d{2})\s*-\s*(\d{1,2}):(\d{2})")
_SEARCH_DAYS: Final = 8  # a week, and the rest of a window that began on the last day


@dataclass(frozen=True, slots=True)
class Window:
    """From `start` to `end`, minutes of a day, half-open; end ≤ start: until the next day."""

    start: int
    end: int

    @property
    def minutes(self) -> int:
        """Length on a day without a clock change; equal ends mean a whole day."""
        return (self.end - self.start) % 1440 or 1440

    def __str__(self) -> str:
        return f"{_clock(self.start)}-{_clock(self.end)}"


@dataclass(frozen=True, slots=True)
class Week:
    """Windows of each weekday, Monday first."""

    days: tuple[tuple[Window, ...], ...]

    def covers(self, local: datetime) -> bool:
        """Return True if wall time `local` lies in a window, one of the day before included."""
        minute = local.hour * 60 + local.minute
        today, before = self.days[local.weekday()], self.days[local.weekday() - 1]
        return any(0 <= minute - w.start < w.minutes for w in today) or any(
            minute + 1440 - w.start < w.minutes for w in before
        )

    def next_change(self, local: datetime) -> datetime | None:
        """The first wall time after `local` at which `covers` changes; None if it never does.

        Only starts and ends of windows can be that time. Instants are compared in UTC: two aware
        times of one zone compare by their wall clocks, which an hour that repeats makes wrong.
        """
        now = self.covers(local)
        times = (at for at in self._edges(local) if _instant(at) > _instant(local))
        for at in sorted(times, key=_instant):
            if self.covers(at) != now:
                return at
        return None

    def _edges(self, local: datetime) -> Iterable[datetime]:
        for offset in range(-1, _SEARCH_DAYS):
            day = local.date() + timedelta(days=offset)
            midnight = datetime.combine(day, time(), tzinfo=local.tzinfo)
            for window in self.days[day.weekday()]:
                for minute in (window.start, window.start + window.minutes):
                    for fold in (0, 1):
                        yield _real((midnight + timedelta(minutes=minute)).replace(fold=fold))
            # a clock set back or forward can move `covers` at the change itself
            yield from (_real(midnight + timedelta(hours=hour)) for hour in range(24))


def _real(wall: datetime) -> datetime:
    """A wall time that exists: one that a clock change skips becomes the time after the skip."""
    return wall.astimezone(UTC).astimezone(wall.tzinfo)


def _instant(at: datetime) -> float:
    return at.timestamp()


def always() -> Week:
    """Every minute of the week."""
    return Week(((Window(0, 0),),) * 7)


def never() -> Week:
    """No minute."""
    return Week(((),) * 7)


def parse_week(days: Mapping[str, Iterable[str]]) -> Week:
    """Read {"mon": ["22:00-06:00"], …}; "all" stands for days that are not named.

    Raises UsageError naming the day and the text that cannot be read.
    """
    if unknown := sorted(set(days) - {*DAYS, "all"}):
        raise UsageError(f"schedule: {unknown[0]!r} is no day; use {', '.join(DAYS)} or all")
    rest = tuple(days.get("all", ()))
    return Week(
        tuple(tuple(_window(day, text) for text in days.get(day, rest)) for day in DAYS),
    )


def _window(day: str, text: str) -> Window:
    found = _WINDOW.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"schedule, {day}: {text!r} is no window; write it as 22:00-06:00")
    h1, m1, h2, m2 = map(int, found.groups())
    start, end = h1 * 60 + m1, h2 * 60 + m2
    if m1 > 59 or m2 > 59 or start >= 1440 or end > 1440:
        raise UsageError(f"schedule, {day}: {text!r} names a time that no day has")
    return Window(start, end % 1440)


def _clock(minute: int) -> str:
    return f"{minute // 60:02d}:{minute % 60:02d}"
