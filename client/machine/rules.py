"""The table of rules: each says what keeps this machine from training, or nothing. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from nomoat.client.machine.readings import GpuProgram, MachineLimits, Orders, Readings
from nomoat.client.machine.weekly_schedule import Week


@dataclass(frozen=True, slots=True)
class Situation:
    """The facts a rule looks at; `engaged`: this rule blocks already."""

    readings: Readings
    limits: MachineLimits
    orders: Orders
    engaged: bool


@dataclass(frozen=True, slots=True)
class Rule:
    """`blocked` gives the reason or None; the block outlives its cause by `settle_s`.

    spread_s: and by up to so many more, drawn anew each time. Two programs that make way for each
    other, and cannot talk, must not come back at the same time for ever.
    """

    name: str
    settle_s: float
    blocked: Callable[[Situation], str | None]
    spread_s: float = 0.0


def _paused(s: Situation) -> str | None:
    if not s.orders.paused:
        return None
    until = s.orders.paused_until
    if until is None:
        return "paused by you, until nomoat resume"
    if until.timestamp() <= s.readings.now.timestamp():
        return None
    return f"paused by you, until {when(until, s.readings.now)}"


def _schedule(s: Situation) -> str | None:
    if s.limits.schedule.covers(s.readings.now):
        return None
    return "outside the schedule" + _next(s.limits.schedule, s.readings.now)


def _quiet(s: Situation) -> str | None:
    if not s.limits.quiet_hours.covers(s.readings.now):
        return None
    return "quiet hours" + _next(s.limits.quiet_hours, s.readings.now)


def _gpu_in_use(s: Situation) -> str | None:
    shown = _disturbing(s, outside=False)
    return f"GPU in use by another program ({shown})" if shown else None


def _gpu_in_use_outside(s: Situation) -> str | None:
    shown = _disturbing(s, outside=True)
    return f"GPU in use by a program outside this container (process {shown})" if shown else None


def _disturbing(s: Situation, outside: bool) -> str:
    """The names of programs to yield to, at most three."""
    if not s.limits.yield_gpu or s.readings.gpu_programs is None:
        return ""
    programs = [p for p in s.readings.gpu_programs if p.outside is outside]
    names = sorted({p.name for p in programs if _disturbs(p, s.limits)})
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _disturbs(program: GpuProgram, limits: MachineLimits) -> bool:
    """Any computation does; graphics do by time spent, or by memory where time is unknown."""
    if program.name in limits.ignored_programs:
        return False
    if program.compute:
        return True
    busy = _known(program.busy_share)
    if busy is not None:
        return busy >= limits.graphics_busy_share
    return (program.memory_bytes or 0) >= limits.graphics_memory_bytes


def _in_use(s: Situation) -> str | None:
    wanted, idle = s.limits.idle_after_s, _known(s.readings.idle_s)
    if wanted is None:
        return None
    if idle is None:
        return "whether you are away is unknown, and training is limited to that (nomoat doctor)"
    return None if idle >= wanted else f"you are using this machine (idle {_span(wanted)} needed)"


def _battery(s: Situation) -> str | None:
    return "on battery" if s.readings.on_battery and not s.limits.on_battery else None


def _metered(s: Situation) -> str | None:
    return "on a metered network" if s.readings.metered and not s.limits.on_metered else None


def _hot(s: Situation) -> str | None:
    return _over(s.readings.temperature_c, s.limits.max_temperature_c, s, "temperature", "°C")


def _power(s: Situation) -> str | None:
    return _over(s.readings.power_w, s.limits.max_power_w, s, "power draw", "W")


def _over(
    value: float | None, limit: float | None, s: Situation, what: str, unit: str
) -> str | None:
    """Blocks above `limit`; once engaged, until `margin` below it."""
    if limit is None:
        return None
    value = _known(value)
    if value is None:
        return f"{what} is unknown, and a limit of {limit:g} {unit} is set (nomoat doctor)"
    margin = s.limits.temperature_margin_c if unit == "°C" else s.limits.power_margin_w
    if value <= (limit - margin if s.engaged else limit):
        return None
    return f"{what} {value:.0f} {unit}, limit {limit:g} {unit}"


def _vram(s: Situation) -> str | None:
    limit, share = s.limits.max_vram_share, _known(s.readings.vram_share)
    if limit is None or share is None or share <= limit:
        return None
    return f"GPU memory {share:.0%} taken by training, limit {limit:.0%}"


def _busy_cpu(s: Situation) -> str | None:
    limit, share = s.limits.max_other_cpu_share, _known(s.readings.other_cpu_share)
    if limit is None or share is None:
        return None
    if share <= (limit - s.limits.other_cpu_margin if s.engaged else limit):
        return None
    return f"processor {share:.0%} taken by other programs, limit {limit:.0%}"


def _disk(s: Situation) -> str | None:
    free, least = s.readings.free_disk_bytes, s.limits.min_free_disk_bytes
    if free is None or free >= (least * 5 // 4 if s.engaged else least):
        return None
    return f"disk almost full ({free >> 20} MiB free, {least >> 20} MiB needed)"


# An order, the clock and the owner's hands are obeyed at once, both ways; what flickers settles.
RULES: Final = (
    Rule("paused", 0.0, _paused),
    Rule("schedule", 0.0, _schedule),
    Rule("quiet", 0.0, _quiet),
    Rule("gpu", 60.0, _gpu_in_use),
    Rule("outside", 60.0, _gpu_in_use_outside, spread_s=120.0),
    Rule("idle", 0.0, _in_use),
    Rule("battery", 30.0, _battery),
    Rule("metered", 30.0, _metered),
    Rule("temperature", 30.0, _hot),
    Rule("power", 30.0, _power),
    Rule("vram", 30.0, _vram),
    Rule("cpu", 60.0, _busy_cpu),
    Rule("disk", 30.0, _disk),
)


def _known(value: float | None) -> float | None:
    """None for what a sensor did not or could not say: NaN, infinities."""
    return value if value is not None and math.isfinite(value) else None


def _next(week: Week, now: datetime) -> str:
    change = week.next_change(now)
    return f", until {when(change, now)}" if change else " (no window is set)"


def when(at: datetime, now: datetime) -> str:
    """A time as its owner reads it at `now`: by the clock, the day or the date."""
    local = at.astimezone(now.tzinfo)
    days = (local.date() - now.date()).days
    if days == 0:
        return f"{local:%H:%M}"
    return f"{local:%a %H:%M}" if 0 < days < 7 else f"{local:%Y-%m-%d %H:%M}"


def _span(seconds: float) -> str:
    return f"{seconds / 60:g} min" if seconds >= 60 else f"{seconds:g} s"
