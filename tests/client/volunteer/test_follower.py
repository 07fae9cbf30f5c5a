"""Who is not let in asks for the newest adapter rarely, and says so once."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from nomoat.aggregation.errors import NomoatError, Refused
from nomoat.client.volunteer.follower import REFUSED_S, Known, VersionFollower

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
