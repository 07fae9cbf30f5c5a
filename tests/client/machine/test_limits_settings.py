"""What the owner allows is read from settings.toml, whose comments say what may be set."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
import tomlkit

from nomoat.aggregation.errors import UsageError
from nomoat.client.home import CommunityFolder
from nomoat.client.machine.limits_settings import HELP, MachineSettings
from nomoat.client.machine.readings import MachineLimits
from nomoat.client.settings import VolunteerSettings

MONDAY_NOON = datetime(2026, 1, 5, 12, 30, tzinfo=UTC)


def saved(folder: Path) -> CommunityFolder:
    folder = CommunityFolder(folder)
    folder.save(VolunteerSettings(address="h:1", name="ada", data=Path("d"), base="pocket"))
    return folder


def test_nothing_set_allows_what_limits_allow_and_every_key_is_offered(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    assert folder.load().machine.limits() == MachineLimits()
    text = folder.settings.read_text()
    offered = set(re.findall(r"^# (\w+) = ", text, re.MULTILINE))
    assert offered >= set(MachineSettings.model_fields)


def test_every_offered_line_can_be_taken_up_as_it_stands(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    text = folder.settings.read_text()
    table, lines = text.split("[machine]\n")
    taken = [line.removeprefix("# ") for line in lines.splitlines() if " = " in line]
    folder.settings.write_text(table + "[machine]\n" + "\n".join(taken) + "\n")
    machine = folder.load().machine
    assert set(machine.model_fields_set) == set(MachineSettings.model_fields)
    limits = machine.limits()
    assert limits.max_temperature_c == 75
    assert "obs" in limits.ignored_programs
    assert not limits.schedule.covers(MONDAY_NOON)
    assert limits.quiet_hours.covers(MONDAY_NOON)
    assert machine.upload_bytes_s == 250_000


def test_what_the_owner_wrote_survives_joining_again(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    document = tomlkit.parse(folder.settings.read_text())
    document["machine"]["cpu_share"] = 0.5  # type: ignore[index]
    folder.settings.write_text(tomlkit.dumps(document) + "# my own words\n")
    folder.save(folder.load())
    assert folder.load().machine.cpu_share == 0.5
    assert "# my own words" in folder.settings.read_text()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('schedule = { mon = ["25:00-26:00"] }', "mon"),
        ("schedule = { noday = [] }", "no day"),
        ("cpu_share = 0", "cpu_share"),
        ("max_temperatur_c = 70", "max_temperatur_c"),
    ],
)
def test_what_cannot_be_is_one_line_naming_file_and_key(
    line: str, words: str, tmp_path: Path
) -> None:
    folder = saved(tmp_path)
    folder.settings.write_text(folder.settings.read_text() + line + "\n")
    with pytest.raises(UsageError, match=words) as refusal:
        folder.load()
    assert str(folder.settings) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_the_help_is_not_longer_than_a_screen() -> None:
    assert len(HELP.splitlines()) <= 24
    assert max(map(len, HELP.splitlines())) <= 100
