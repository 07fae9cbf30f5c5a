"""The owner's limits as a form, and a form as the table [machine] of settings.toml.

Only keys that differ from their default are written; comments and everything else in the file stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import tomlkit
from pydantic import ValidationError

from nomoat.aggregation.errors import UsageError
from nomoat.client.home import CommunityFolder
from nomoat.client.machine.limits_settings import MachineSettings
from nomoat.client.machine.weekly_schedule import DAYS
from nomoat.storage.atomic import replacing
from nomoat.storage.settings import first_error

Kind = Literal["number", "whole", "share", "yes"]
WEEKS: Final = ("schedule", "quiet_hours")
DAY_NAMES: Final = (
    *(("all", "Every day"), ("mon", "Monday"), ("tue", "Tuesday"), ("wed", "Wednesday")),
    *(("thu", "Thursday"), ("fri", "Friday"), ("sat", "Saturday"), ("sun", "Sunday")),
)


@dataclass(frozen=True)
class LimitField:
    """One setting. at_once: a running volunteer follows it within seconds."""

    key: str
    label: str
    kind: Kind
    hint: str = ""
    at_once: bool = True


FIELDS: Final = (
    LimitField("idle_after_s", "Only after so many seconds without key or mouse", "number"),
    LimitField("max_temperature_c", "At most °C", "number", "30 to 120; slows down before"),
    LimitField("max_power_w", "At most W of the GPU", "number"),
    LimitField("max_vram_share", "At most of the GPU's memory", "share"),
    LimitField(
        "max_other_cpu_share", "Wait while other programs take more of the processor than", "share"
    ),
    LimitField("cpu_share", "Of the time spent training", "share", "the rest is slept"),
    LimitField("min_free_disk_mb", "Wait while less MB of disk are free", "whole"),
    LimitField("on_battery", "Train on battery, too", "yes"),
    LimitField("on_metered", "Train on a metered network, too", "yes"),
    LimitField("yield_gpu", "Give way to other programs on the GPU", "yes"),
    LimitField("cores", "Cores of the processor", "whole", at_once=False),
    LimitField("upload_kbit_s", "Upload at most kbit/s", "number", at_once=False),
    LimitField("download_kbit_s", "Download at most kbit/s", "number", at_once=False),
    LimitField("adam_8bit", "Optimiser in 8 bits (needs bitsandbytes)", "yes", at_once=False),
)


@dataclass(frozen=True)
class FilledField:
    """A field and its present value as text; yes: that of a box to tick."""

    field: LimitField
    text: str
    yes: bool


@dataclass(frozen=True)
class DayWindows:
    """A day's windows as text, of the schedule and of quiet hours."""

    key: str
    name: str
    schedule: str
    quiet_hours: str


@dataclass(frozen=True)
class LimitsView:
    """The form as it is filled in now."""

    fields: tuple[FilledField, ...]
    week: tuple[DayWindows, ...]


def limits_view(folder: CommunityFolder) -> LimitsView:
    """Return the limits in force, as fields."""
    machine = folder.load().machine
    fields = tuple(_filled(field, getattr(machine, field.key)) for field in FIELDS)
    week = tuple(
        DayWindows(key, name, _windows(machine.schedule, key), _windows(machine.quiet_hours, key))
        for key, name in DAY_NAMES
    )
    return LimitsView(fields, week)


def _filled(field: LimitField, value: Any) -> FilledField:
    shown = 100 * value if field.kind == "share" and value is not None else value
    text = "" if value is None or field.kind == "yes" else f"{shown:g}"
    return FilledField(field, text, value is True)


def _windows(week: Mapping[str, tuple[str, ...]], day: str) -> str:
    return ", ".join(week.get(day, ()))


def wanted(form: Mapping[str, str], before: MachineSettings) -> MachineSettings:
    """Return the settings that a form asks for; UsageError naming the field that cannot be."""
    values = before.model_dump(mode="json")
    for field in FIELDS:
        values[field.key] = _value(field, form.get(field.key, ""))
    for week in WEEKS:
        days = {day: _split(form.get(f"{week}-{day}", "")) for day in (*DAYS, "all")}
        values[week] = {day: windows for day, windows in days.items() if windows}
    given = {key: value for key, value in values.items() if value is not None}
    try:
        return MachineSettings.model_validate(given)
    except ValidationError as problem:
        raise UsageError(first_error(problem)) from None


def _value(field: LimitField, text: str) -> Any:
    """The field's value; None for one that was left empty, which stands for its default."""
    text = text.strip().replace(",", ".")
    if field.kind == "yes":
        return text == "on"
    if not text:
        return None
    try:
        value = int(text) if field.kind == "whole" else float(text)
        return value / 100 if field.kind == "share" else value
    except ValueError:
        raise UsageError(f"{field.label}: {text!r} is no number") from None


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.replace(";", ",").split(",") if part.strip()]


def save(folder: CommunityFolder, machine: MachineSettings) -> None:
    """Write the table [machine]; NomoatError if the file cannot be written."""
    document = tomlkit.parse(folder.settings.read_text("utf-8"))
    if "machine" not in document:
        document.add("machine", tomlkit.table())
    table: Any = document["machine"]
    chosen = machine.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
    for key in (*(field.key for field in FIELDS), *WEEKS):
        if key in chosen:
            value = chosen[key]
            table[key] = _inline(value) if isinstance(value, dict) else value
        elif key in table:
            del table[key]
    with replacing(folder.settings) as file:
        file.write(tomlkit.dumps(document).encode())


def _inline(week: Mapping[str, list[str]]) -> Any:
    table = tomlkit.inline_table()
    table.update(week)
    return table
