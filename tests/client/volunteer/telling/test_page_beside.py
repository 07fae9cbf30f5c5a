"""The page beside a volunteer opens where somebody sees it, once, and ends with the volunteer."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from nomoat.client.volunteer.telling import page_beside as module
from nomoat.client.volunteer.telling.page_beside import page_beside, page_is_open, somebody_looks


@pytest.mark.parametrize(
    ("terminal", "environment", "platform", "seen"),
    [
        (True, {"DISPLAY": ":0"}, "linux", True),
        (True, {"WAYLAND_DISPLAY": "wayland-0"}, "linux", True),
        (True, {}, "linux", False),
        (True, {"DISPLAY": ""}, "linux", False),
        (False, {"DISPLAY": ":0"}, "linux", False),
        (True, {}, "darwin", True),
        (True, {"SSH_CONNECTION": "a b c d"}, "darwin", False),
        (False, {}, "win32", False),
    ],
)
def test_it_opens_on_a_terminal_with_a_display_alone(
    terminal: bool, environment: dict[str, str], platform: str, seen: bool
) -> None:
    assert somebody_looks(terminal, environment, platform) is seen


class Page:
    """Stands for the process of a page; it ends when it is told, or has to be killed."""

    made: list[Page]
    deaf = False

    def __init__(self, command: list[str], **_how: Any) -> None:
        self.command, self.ended = command, ""
        Page.made.append(self)

    def terminate(self) -> None:
        self.ended = "told"

    def kill(self) -> None:
        self.ended = "killed"

    def wait(self, timeout: float | None = None) -> None:
        if self.deaf and self.ended == "told":
            raise subprocess.TimeoutExpired("page", timeout or 0)


@pytest.mark.parametrize(("deaf", "ended"), [(False, "told"), (True, "killed")])
def test_it_ends_with_the_volunteer_also_when_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deaf: bool, ended: str
) -> None:
    Page.made, Page.deaf = [], deaf
    monkeypatch.setattr(module.subprocess, "Popen", Page)
    with pytest.raises(KeyError), page_beside(tmp_path, "1a2b"):
        raise KeyError
    [page] = Page.made
    assert page.ended == ended
    assert page.command[-4:] == ["status", "--web", "--community", "1a2b"]


def test_a_page_that_is_open_already_is_not_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Page.made = []
    monkeypatch.setattr(module.subprocess, "Popen", Page)
    for damaged in ("", "[]", '{"url": "http://127.0.0.1:1/"}', '{"url": "http://[::1/"}'):
        (tmp_path / "page.key").write_text(damaged)
        assert not page_is_open(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as page:
        url = f"http://127.0.0.1:{page.getsockname()[1]}/"
        (tmp_path / "page.key").write_text(json.dumps({"url": url}))
        with page_beside(tmp_path, "1a2b"):
            pass
    assert Page.made == []
