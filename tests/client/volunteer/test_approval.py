"""Who waits for approval asks again soon; who is held asks, and logs, far less often."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nomoat.aggregation.errors import Refused
from nomoat.aggregation.protocol.enrolment import Standing
from nomoat.client.volunteer import approval


class Stop(threading.Event):
    """Notes how long somebody would have waited."""

    waited = 0.0

    def wait(self, timeout: float | None = None) -> bool:
        self.waited = timeout or 0.0
        return False


@pytest.mark.parametrize(("standing", "least", "most"), [("pending", 1, 30), ("held", 60, 300)])
def test_who_is_held_asks_less_often_than_who_waits(
    standing: str, least: float, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert least <= waited(standing, monkeypatch) <= most


def test_who_is_banned_asks_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Refused, match="banned"):
        waited("banned", monkeypatch)


def waited(standing: str, monkeypatch: pytest.MonkeyPatch) -> float:
    monkeypatch.setattr(approval, "node_key", lambda _path: None)
    monkeypatch.setattr(approval, "logged", lambda *_: None)
    answer = (Standing(standing), "late")
    monkeypatch.setattr(approval.coordinator_api, "enrol", lambda *_: answer)
    folder = SimpleNamespace(node_key=Path(), name=lambda: "town")
    settings = SimpleNamespace(name="ada", address="localhost:1")
    kit: Any = SimpleNamespace(folder=folder, settings=settings, coordinator=None)
    said = list[str]()
    status: Any = SimpleNamespace(refuse=said.append)
    stop = Stop()
    approval.wait_for_approval(kit, status, stop)
    assert said[0].startswith(standing)
    return stop.waited
