"""The driver's side of a GPU that is not there: who has a context, how much memory is taken.

Its state is a folder that all processes share ($FAKE_GPU): `context-PID` holds the bytes that a
process has, `log` what happened. Memory of a process that ended is given back late: it is counted
for LATE_LOOKS more looks. CUDA's rule is kept: a process that was forked from one with a context
has none and gets none.
"""

from __future__ import annotations

import os
from pathlib import Path

TOTAL_BYTES = 8 << 30
CONTEXT_BYTES = 400 << 20
LATE_LOOKS = 2

FORKED = (
    "Cannot re-initialize CUDA in forked subprocess. To use CUDA with multiprocessing, you must "
    "use the 'spawn' start method"
)


class Here:
    """This process: whether it has a context, and whether it was forked from one that had."""

    started = False
    inherited = False


def folder() -> Path:
    """The driver's state."""
    return Path(os.environ["FAKE_GPU"])


def say(what: str) -> None:
    """Add a line to the log; one write, so that lines of processes do not mix."""
    with (folder() / "log").open("ab", buffering=0) as file:
        file.write(f"{what} {os.getpid()}\n".encode())


def visible() -> bool:
    """Whether this process may see the GPU at all."""
    return os.environ.get("CUDA_VISIBLE_DEVICES") != ""


def count() -> int:
    """Devices: $FAKE_GPU_COUNT, one unless it says more. What takes memory takes it of each."""
    return int(os.environ.get("FAKE_GPU_COUNT", "1"))


def start(by: str) -> None:
    """Make this process's context; RuntimeError in a fork of a process that had one."""
    if not visible():
        return
    if Here.inherited:
        raise RuntimeError(FORKED)
    if not Here.started:
        Here.started = True
        take(CONTEXT_BYTES)
        say(f"start({by})")


def take(size: int) -> None:
    """Let this process have that many bytes in all."""
    (folder() / f"context-{os.getpid()}").write_text(str(size))


def watch_forks() -> None:
    """Log forks of a process that has a context, and remember them in the child."""

    def before() -> None:
        if Here.started:
            say("FORKED AFTER START")

    def after_in_child() -> None:
        Here.inherited = Here.inherited or Here.started

    os.register_at_fork(before=before, after_in_child=after_in_child)


def contexts() -> dict[int, int]:
    """Bytes by process id, of processes that live or have ended just now."""
    found = {}
    for file in folder().glob("context-*"):
        pid = int(file.name.partition("-")[2])
        if not _lives(pid):
            ended = folder() / f"ended-{pid}"
            looks = len(ended.read_bytes()) if ended.exists() else 0
            if looks >= LATE_LOOKS:
                continue
            with ended.open("ab") as counted:
                counted.write(b".")
        found[pid] = int(file.read_text() or 0)
    return found


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
