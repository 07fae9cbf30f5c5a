"""What takes long shows on a terminal that it goes on, and leaves nothing behind."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

PROGRAM = """
import time
from nomoat.client.cli.output import busy
with busy("checking [your] data") as stop:
    time.sleep(0.3)
    stop()
    print("asked")
"""


def run(stderr: int) -> str:
    """Run PROGRAM with this stderr; its stdout."""
    environment = {**os.environ, "TERM": "xterm"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM],
        stdout=subprocess.PIPE, stderr=stderr, env=environment, check=True,
    )  # fmt: skip
    return done.stdout.decode()


def test_a_terminal_sees_what_is_under_way() -> None:
    ours, theirs = pty.openpty()
    try:
        assert run(theirs) == "asked\n"
        shown = os.read(ours, 1 << 16).decode()
    finally:
        os.close(theirs)
        os.close(ours)
    assert "checking [your] data" in shown
    assert "\x1b[2K" in shown  # and it is wiped away


def test_a_file_gets_nothing_of_it() -> None:
    reading, writing = os.pipe()
    assert run(writing) == "asked\n"
    os.close(writing)
    assert os.read(reading, 100) == b""
    os.close(reading)
