"""The health page judges what can be judged, and says when no backup was ever made."""

from __future__ import annotations

import json
import time

import pytest

from nomoat.desk.coordinator.health import health, synchronised
from nomoat.server.backup.making import LAST
from nomoat.server.community.opened import OpenCommunity
from nomoat.server.succession import rotation

DAY_S = 86_400


def judged(community: OpenCommunity, name: str, now: float) -> tuple[str, str]:
    """(judgement, words) of one line."""
    (line,) = (line for line in health(community.folder, now) if line.name == name)
    return line.judgement, line.value


def test_a_backup_that_is_missing_or_old_is_told(community: OpenCommunity) -> None:
    now = time.time()
    assert judged(community, "Backup", now)[0] == "wait"
    note = community.folder.root / LAST
    note.write_text(json.dumps({"at": int(now - DAY_S)}))
    assert judged(community, "Backup", now) == ("good", "the last was made 1.0 days ago")
    note.write_text(json.dumps({"at": int(now - 8 * DAY_S)}))
    assert judged(community, "Backup", now)[0] == "wait"


def test_a_backup_from_before_a_change_of_the_key_is_told_to_be_of_no_use(
    community: OpenCommunity,
) -> None:
    now = int(time.time())
    note = community.folder.root / LAST
    note.write_text(json.dumps({"at": now - 60}))
    rotation.ask(community.folder, b"\5" * 32)
    rotation.rotate(community, now)
    found, said = judged(community, "Backup", now)
    assert found == "bad"
    assert "cannot be gone on with" in said
    note.write_text(json.dumps({"at": now}))
    assert judged(community, "Backup", now)[0] == "good"


def test_a_certificate_is_told_before_and_after_its_end(community: OpenCommunity) -> None:
    now = time.time()
    assert judged(community, "Certificate", now)[0] == "good"
    assert judged(community, "Certificate", now + 800 * DAY_S)[0] == "wait"
    assert judged(community, "Certificate", now + 900 * DAY_S)[0] == "bad"


@pytest.mark.parametrize(("kept", "judgement"), [(True, "good"), (False, "wait"), (None, "plain")])
def test_a_clock_that_nothing_keeps_is_told(
    community: OpenCommunity, monkeypatch: pytest.MonkeyPatch, kept: bool | None, judgement: str
) -> None:
    monkeypatch.setattr("nomoat.desk.coordinator.health.synchronised", lambda: kept)
    found, said = judged(community, "Clock", 1_790_000_000.0)
    assert found == judgement
    assert said.startswith("2026-09-21 14:13:20 UTC")


def test_this_machines_clock_can_be_asked() -> None:
    assert synchronised() in (True, False, None)


def test_what_nobody_judges_has_no_judgement(community: OpenCommunity) -> None:
    for name in ("Software", "This process", "Database", "Adapter files"):
        assert judged(community, name, time.time())[0] == "plain"
