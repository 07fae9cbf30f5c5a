"""Ctrl-C typed into a real terminal while `nomoat chat` answers in it, or waits for a line."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

pty = pytest.importorskip("pty")

CTRL_C, PATIENCE_S = b"\x03", 120.0
# A session of its own, whose first terminal becomes the one that Ctrl-C is typed into. Whoever runs
# the tests in a shell's background has it ignored, and children would inherit that.
IN_TERMINAL = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
terminal = os.open(sys.argv[1], os.O_RDWR)
for stream in (0, 1, 2):
    os.dup2(terminal, stream)
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""
# Ctrl-C after readline has shown the prompt, before it waits for keys: only a flag of Python's.
INTERRUPTED_TOO_EARLY = """
import ctypes, readline
from nomoat.serving.terminal.chat import read_line
hook = ctypes.c_void_p.in_dll(ctypes.CDLL(readline.__file__), "rl_pre_input_hook")
hook.value = ctypes.cast(ctypes.pythonapi.PyErr_SetInterrupt, ctypes.c_void_p).value
try:
    read_line("> ")
except KeyboardInterrupt:
    print("noticed")
"""


@dataclass
class Terminal:
    """The side of a terminal that a person sits at."""

    ours: int
    process: subprocess.Popen[bytes]
    shown: str = ""

    def type(self, text: bytes) -> None:
        os.write(self.ours, text)

    def until(self, pattern: str) -> None:
        """Read until `pattern` has been shown, and forget what came before its end."""
        ends = time.monotonic() + PATIENCE_S
        while (found := re.search(pattern, self.shown)) is None:
            ready, _, _ = select.select([self.ours], [], [], max(0.0, ends - time.monotonic()))
            assert ready, f"no {pattern!r} in {self.shown!r}"
            self.shown += os.read(self.ours, 4096).decode("utf-8", "replace")
        self.shown = self.shown[found.end() :]


@contextmanager
def in_terminal(*arguments: str, home: Path) -> Iterator[Terminal]:
    """A Python with these arguments in a terminal of its own."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", IN_TERMINAL, os.ttyname(theirs), *arguments],
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        env=os.environ | {"NOMOAT_HOME": str(home), "TERM": "dumb"},
    )
    try:
        yield Terminal(ours, process)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        os.close(theirs)


@pytest.mark.timeout(300)
def test_ctrl_c_stops_the_answer_then_leaves_the_chat(tiny_model: Path, tmp_path: Path) -> None:
    options = ("--base", str(tiny_model), "--engine", "peft", "--max-tokens", "400", "--seed", "1")
    with in_terminal("-m", "nomoat", "chat", *options, home=tmp_path) as chat:
        chat.until(r"> ")
        chat.type(b"def open(file):\n")
        chat.until(r"def open\(file\):\r\n.")  # the answer has begun
        chat.type(CTRL_C)
        chat.until(r"\[stopped\]")
        chat.until(r"> ")  # the chat goes on
        chat.type(b"/again\n")
        chat.until(r"/again\r\n.")
        chat.type(CTRL_C)
        chat.until(r"\[stopped\]")
        chat.until(r"> ")
        chat.type(CTRL_C)
        assert chat.process.wait(PATIENCE_S) == 0


def test_ctrl_c_just_before_the_wait_for_keys_is_not_lost(tmp_path: Path) -> None:
    pytest.importorskip("readline")
    with in_terminal("-c", INTERRUPTED_TOO_EARLY, home=tmp_path) as reading:
        reading.until("noticed")
