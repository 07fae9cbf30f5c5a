"""Figures of a training reach its owner while they are true, and an edit of limits its governor."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from builders import community_info
from nomoat.client.home import CommunityFolder
from nomoat.client.machine.limits_settings import MachineSettings
from nomoat.client.machine.readings import Readings
from nomoat.client.settings import VolunteerSettings
from nomoat.client.volunteer.limits_watch import LimitsWatch
from nomoat.client.volunteer.measurements import (
    OLD_S,
    MeasurementsFile,
    path_of,
    read_measurements,
)
from nomoat.lora.training.steps import TrainingStep

READINGS = Readings(datetime(2026, 1, 5, tzinfo=UTC), temperature_c=61.0, power_w=140.0)


class Clock:
    at = 1000.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def folder(tmp_path: Path) -> CommunityFolder:
    made = CommunityFolder(tmp_path / "community")
    made.save_info(community_info())
    made.save(VolunteerSettings(address="localhost:1", name="ada", data=tmp_path, base="pocket"))
    return made


def test_a_step_and_the_sensors_are_told_together_and_say_what_is_left(
    folder: CommunityFolder,
) -> None:
    clock = Clock()
    file = MeasurementsFile(path_of(folder), lambda: frozenset({os.getpid()}), clock)
    file.looked(READINGS)
    clock.at += 2
    file.stepped(TrainingStep(4, 20, 2.5, 8.0))
    found = read_measurements(folder, clock.at)
    assert found is not None
    assert (found.step, found.steps, found.loss, found.left_s()) == (4, 20, 2.5, 32.0)
    assert (found.temperature_c, found.power_w, found.vram_share) == (61.0, 140.0, None)
    assert found.memory_bytes is not None
    assert found.memory_bytes > 1 << 20


def test_the_file_is_written_once_a_second_at_most(folder: CommunityFolder) -> None:
    clock = Clock()
    file = MeasurementsFile(path_of(folder), frozenset, clock)
    file.stepped(TrainingStep(1, 20, 2.5, 1.0))
    clock.at += 0.5
    file.stepped(TrainingStep(2, 20, 2.4, 1.5))
    found = read_measurements(folder, clock.at)
    assert found is not None
    assert found.step == 1


def test_what_is_old_or_damaged_is_not_told(folder: CommunityFolder) -> None:
    clock = Clock()
    MeasurementsFile(path_of(folder), frozenset, clock).looked(READINGS)
    assert read_measurements(folder, clock.at + OLD_S - 1) is not None
    assert read_measurements(folder, clock.at + OLD_S + 1) is None
    for text in ("", "{", "[]", '{"at": "x"}', '{"at": 1000.0, "other": 1}'):
        path_of(folder).write_text(text)
        assert read_measurements(folder, clock.at) is None


def test_limits_are_read_again_when_the_file_was_edited_and_only_then(
    folder: CommunityFolder, caplog: pytest.LogCaptureFixture
) -> None:
    watch = LimitsWatch(folder, b"lots")
    assert watch() is None
    text = folder.settings.read_text()
    folder.settings.write_text(text.replace("[machine]", "[machine]\nmax_temperature_c = 77"))
    found = watch()
    assert found is not None
    assert found.machine.max_temperature_c == 77
    assert found.machine.lots == b"lots"
    assert found.cpu_share == MachineSettings().cpu_share
    assert watch() is None
    folder.settings.write_text(text + "\nnonsense = [")
    assert watch() is None
    assert "stay in force" in caplog.text
