"""Settings that may change in a community that has members, and what each change means.

All of them take effect at the next start of `nomoat up`. What members agreed to when they joined
(masks, how few may be summed) and what the adapter is made of are not among them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import tomlkit
from pydantic import ValidationError

from nomoat.aggregation.errors import UsageError
from nomoat.server.community.folder import Folder
from nomoat.server.community.settings import Settings
from nomoat.storage.atomic import replacing
from nomoat.storage.settings import first_error

Value = str | int | float


@dataclass(frozen=True)
class ChangeableSetting:
    """One setting. meaning: of a change. choices: all that it can be, if it is one of a few."""

    table: str
    key: str
    label: str
    meaning: str
    choices: tuple[str, ...] = ()


CHANGEABLE: Final = (
    ChangeableSetting(
        "community", "about", "A line for those who are invited",
        "Whoever joins from then on reads it on the sheet.",
    ),
    ChangeableSetting(
        "community", "admission", "Admission",
        "open: an invitation is enough; approve: each waits for you. Members stay what they are.",
        ("open", "approve"),
    ),
    ChangeableSetting(
        "rounds", "round_every", "Seconds between two rounds, at least",
        "More leaves volunteers' machines alone for longer.",
    ),
    ChangeableSetting(
        "rounds", "max_rounds", "Rounds in all",
        "More lets a community go on that had ended; a learning-rate schedule stretches over them.",
    ),
    ChangeableSetting(
        "rounds", "fraction", "Share of the volunteers asked",
        "Fewer are asked in a round, drawn anew each time; never fewer than must report.",
    ),
    ChangeableSetting(
        "rounds", "train_deadline", "Seconds to train",
        "Who is not ready by then is late, and its work of this round is lost.",
    ),
    ChangeableSetting(
        "rounds", "aggregate_deadline", "Seconds for each step of a sum",
        "Shorter goes on sooner without those who vanished; too short abandons rounds.",
    ),
    ChangeableSetting(
        "rounds", "evaluate_deadline", "Seconds to measure a candidate",
        "Who is late is not in its loss.",
    ),
    ChangeableSetting(
        "rounds", "patience", "Seconds a volunteer may vanish",
        "A round goes on without whoever was not heard of for longer.",
    ),
    ChangeableSetting(
        "rounds", "tolerance", "Relative rise of loss that is accepted",
        "0: what the evaluators' disagreement explains. More lets worse candidates in.",
    ),
    ChangeableSetting(
        "training", "local_steps", "Steps of a volunteer in a round",
        "More is more work for each of them, and fewer, larger moves of the adapter.",
    ),
    ChangeableSetting(
        "training", "batch_size", "Rows in a step", "More takes more of each machine's memory.",
    ),
    ChangeableSetting(
        "training", "learning_rate", "Learning rate", "Of the volunteers' optimiser.",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class FilledSetting:
    """A setting with what community.toml has for it."""

    setting: ChangeableSetting
    value: str


@dataclass(frozen=True)
class FixedSetting:
    """A setting that a page does not change."""

    name: str
    value: str


@dataclass(frozen=True)
class SettingsView:
    """The settings that may be changed here, and those that are fixed or changed in the file."""

    changeable: tuple[FilledSetting, ...]
    fixed: tuple[FixedSetting, ...]


def settings_view(folder: Folder) -> SettingsView:
    """Return the settings of community.toml as they are now."""
    values = folder.load().model_dump(mode="json")
    here = {(each.table, each.key) for each in CHANGEABLE}
    fixed = tuple(
        FixedSetting(f"{table}.{key}", _text(value))
        for table, keys in values.items()
        for key, value in keys.items()
        if (table, key) not in here and key != "seed"
    )
    changeable = tuple(
        FilledSetting(each, _text(values[each.table][each.key])) for each in CHANGEABLE
    )
    return SettingsView(changeable, fixed)


def change(folder: Folder, form: Mapping[str, str]) -> tuple[str, ...]:
    """Write what a form changes; the names of what was. UsageError, and nothing is, if it cannot.

    Comments of the file stay.
    """
    before = folder.load().model_dump(mode="json")
    document = tomlkit.parse(folder.settings.read_text("utf-8"))
    changed = []
    for each in CHANGEABLE:
        name, old = f"{each.table}.{each.key}", before[each.table][each.key]
        if (text := form.get(name)) is None or text.strip() == _text(old):
            continue
        value = _typed(each, text.strip(), old)
        before[each.table][each.key] = value
        table: Any = document.setdefault(each.table, tomlkit.table())
        table[each.key] = value
        changed.append(name)
    _check(before)
    if changed:
        with replacing(folder.settings) as file:
            file.write(tomlkit.dumps(document).encode())
    return tuple(changed)


def _check(values: Mapping[str, Any]) -> None:
    """UsageError if these values are no settings; environment and file are not asked."""
    try:
        for name, field in Settings.model_fields.items():
            assert field.annotation is not None
            field.annotation.model_validate(values[name])
    except ValidationError as problem:
        raise UsageError(first_error(problem)) from None


def _typed(setting: ChangeableSetting, text: str, old: Value) -> Value:
    if isinstance(old, str):
        return text
    try:
        return int(text) if isinstance(old, int) else float(text.replace(",", "."))
    except ValueError:
        raise UsageError(f"{setting.label}: {text!r} is no number") from None


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
