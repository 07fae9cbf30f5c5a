"""Who is not let in asks for the newest adapter rarely, and says so once."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from builders import adapter, evaluate_task
from nomoat.aggregation.errors import NomoatError, Refused
from nomoat.aggregation.protocol import lineage
from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.client.connection import coordinator_api
from nomoat.client.round.last_measured import LastMeasured
from nomoat.client.round.work import EvaluateWork
from nomoat.client.volunteer.follower import REFUSED_S, Known, VersionFollower, fetch_newest

HELD = "the coordinator says: only approved volunteers may download"


def test_who_is_held_asks_rarely_and_logs_one_line_until_it_is_let_in_again(
    caplog: pytest.LogCaptureFixture, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[NomoatError] = [Refused(HELD), Refused(HELD), NomoatError("no"), Refused(HELD)]

    def refresh() -> None:
        raise answers.pop(0)

    kit: Any = SimpleNamespace(folder=SimpleNamespace(root=tmp_path))
    known: Any = Known(SimpleNamespace(refresh=refresh), SimpleNamespace())  # type: ignore[arg-type]
    status: Any = SimpleNamespace(insist=lambda _complaint: None)
    stop: Any = None
    follower = VersionFollower(kit, known, status, stop)
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    follower._due = [1003.0, 1015.0]
    for _ in range(2):
        follower._follow()
        assert follower._due == [1000.0 + REFUSED_S]
    assert caplog.text.count(HELD) == 1
    follower._follow()
    follower._follow()
    assert caplog.text.count(HELD) == 1


def test_a_version_that_was_measured_here_is_not_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched, saved = [], []

    def download(_coordinator: Any, record: Any, _now: int) -> Adapter:
        fetched.append(record.version.adapter)
        return other

    monkeypatch.setattr(coordinator_api, "download", download)
    known_here, other = adapter(1), adapter(2)
    measured = LastMeasured()
    measured.begun(EvaluateWork(evaluate_task(known_here), known_here))
    for newest in (known_here, other):
        record = SimpleNamespace(version=SimpleNamespace(adapter=newest.digest, number=1))
        path = tmp_path / newest.digest.hex()
        folder = SimpleNamespace(
            adapter=lambda _record, path=path: path,
            version=lambda: saved[-1] if saved else None,
            save_version=saved.append,
        )
        versions: Any = SimpleNamespace(
            refresh=lambda record=record: SimpleNamespace(record=record)
        )
        kit: Any = SimpleNamespace(folder=folder, coordinator=None)
        for _ in range(2):
            assert fetch_newest(kit, versions, measured) == 1
        assert lineage.from_file(path.read_bytes(), newest.digest, "here").digest == newest.digest
    assert fetched == [other.digest]
    assert len(saved) == 2
