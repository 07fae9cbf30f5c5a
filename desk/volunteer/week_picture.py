"""The week as a picture: a row a day, filled where limits let training run, local wall time."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from markupsafe import Markup

from nomoat.client.machine.limits_settings import MachineSettings
from nomoat.client.machine.weekly_schedule import Week, always, never, parse_week

NAMES: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MONDAY: Final = datetime(2024, 1, 1)
STEP_MIN: Final = 30
LEFT, ROW, HOUR = 36.0, 18.0, 14.0


def allowed(machine: MachineSettings, step_min: int = STEP_MIN) -> tuple[tuple[bool, ...], ...]:
    """Return for each day, Monday first, which of its steps may be trained in."""
    within = parse_week(machine.schedule) if machine.schedule else always()
    quiet = parse_week(machine.quiet_hours) if machine.quiet_hours else never()
    steps = range(0, 24 * 60, step_min)
    return tuple(
        tuple(_may(within, quiet, MONDAY + timedelta(days=day, minutes=at)) for at in steps)
        for day in range(7)
    )


def _may(within: Week, quiet: Week, at: datetime) -> bool:
    return within.covers(at) and not quiet.covers(at)


def week_picture(machine: MachineSettings) -> Markup:
    """Return the picture, and its sum in a sentence for whoever cannot see it."""
    days = allowed(machine)
    hours = sum(map(sum, days)) * STEP_MIN / 60
    told = f"Training may run in {hours:g} of the week's 168 hours."
    rows = Markup("").join(_row(day, steps) for day, steps in enumerate(days))
    ticks = Markup("").join(
        Markup('<text x="{:g}" y="{:g}" text-anchor="middle">{}</text>').format(
            LEFT + hour * HOUR, 7 * ROW + 16, hour
        )
        for hour in range(0, 25, 6)
    )
    return Markup(
        '<svg class="chart week" viewBox="0 0 {:g} {:g}" role="img" aria-label="{}">{}{}</svg>'
        "<p class='quiet'>{}</p>"
    ).format(LEFT + 24 * HOUR + 14, 7 * ROW + 22, told, rows, ticks, told)


def _row(day: int, steps: tuple[bool, ...]) -> Markup:
    y, width = day * ROW, HOUR * STEP_MIN / 60
    ground = Markup('<rect class="no" x="{:g}" y="{:g}" width="{:g}" height="{:g}"/>').format(
        LEFT, y + 2, 24 * HOUR, ROW - 4
    )
    filled = Markup("").join(
        Markup('<rect class="yes" x="{:g}" y="{:g}" width="{:g}" height="{:g}"/>').format(
            LEFT + begin * width, y + 2, (end - begin) * width, ROW - 4
        )
        for begin, end in _runs(steps)
    )
    name = Markup('<text x="0" y="{:g}">{}</text>').format(y + ROW - 5, NAMES[day])
    return Markup("").join((name, ground, filled))


def _runs(steps: tuple[bool, ...]) -> list[tuple[int, int]]:
    """Begin and end of each run of steps that may be trained in."""
    edges = [
        at for at in range(len(steps) + 1)
        if (at > 0 and steps[at - 1]) != (at < len(steps) and steps[at])
    ]  # fmt: skip
    return list(zip(edges[::2], edges[1::2], strict=True))
