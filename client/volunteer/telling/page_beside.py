"""The page beside a volunteer: `nomoat status --web` in a process of its own, which ends with it.

It opens where somebody sits who can see it, on a terminal with a display, and nowhere else.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

LOOK_S = 1.0
END_S = 5.0


def somebody_looks(
    terminal: bool, environment: Mapping[str, str], platform: str = sys.platform
) -> bool:
    """Return True if a browser that is opened now is seen by whoever typed the command.

    terminal: stdout and stderr are one.
    """
    if platform in ("win32", "darwin"):
        return terminal and "SSH_CONNECTION" not in environment
    return terminal and any(environment.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def page_is_open(home: Path) -> bool:
    """Return True if a page of this home answers already."""
    try:
        url = urlsplit(json.loads((home / "page.key").read_text())["url"])
        with socket.create_connection((url.hostname or "", url.port or 0), LOOK_S):
            return True
    except (OSError, ValueError, KeyError, TypeError):
        return False


@contextmanager
def page_beside(home: Path, community: str) -> Iterator[None]:
    """Keep the page open while the block runs, unless one is open."""
    if page_is_open(home):
        yield
        return
    command = [sys.executable, "-P", "-m", "nomoat", "status", "--web", "--community", community]
    page = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        page.terminate()
        try:
            page.wait(END_S)
        except subprocess.TimeoutExpired:
            page.kill()
            page.wait()
