"""One command as a whole: wall-clock time and memory of its process tree.

Memory is the sum of proportional set sizes (PSS): a page that several processes share counts once,
split among them. Resident sizes would count the pages forked workers share once per worker.
Linux only: it reads /proc, and adopts orphaned descendants so that none escapes the sum.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

PR_SET_CHILD_SUBREAPER = 36  # prctl(2): orphaned descendants become ours, not init's
LEFTOVERS_END_S = 10.0


class CommandFailed(Exception):
    """A measured command ended with an error."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A finished command. peak_bytes: largest sampled sum of PSS; None if it was not sampled."""

    stdout: str
    seconds: float
    peak_bytes: int | None
    samples: int


def measure(
    command: Sequence[str],
    environment: Mapping[str, str],
    sample_every_s: float | None = None,
    timeout_s: float = 3600.0,
) -> Measured:
    """Run `command` to its end; CommandFailed with the end of its stderr if that is an error.

    Time runs from the start of the process to its exit; memory is sampled only if asked for, in
    runs of their own, since reading it takes processor time from what is measured.
    """
    _adopt_orphans()
    sampler = _Sampler(sample_every_s)
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        started = time.monotonic()
        process = subprocess.Popen(command, env=dict(environment), stdout=out, stderr=err)
        with sampler:
            try:
                code = process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
                code = process.wait()
        seconds = time.monotonic() - started
        _end_leftovers()
        out.seek(0)
        err.seek(0)
        if code:
            tail = err.read()[-2000:]
            raise CommandFailed(f"{' '.join(command[:4])} … ended with {code}:\n{tail}")
        return Measured(out.read(), seconds, sampler.peak_bytes, sampler.samples)


class _Sampler:
    """A thread that sums the memory of all descendants now and then, while the block runs."""

    def __init__(self, every_s: float | None) -> None:
        self.peak_bytes: int | None = None
        self.samples = 0
        self._every_s = every_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> None:
        if self._every_s is not None:
            self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._every_s is not None:
            self._thread.join()

    def _watch(self) -> None:
        me = psutil.Process()
        while not self._over.wait(self._every_s):
            total = sum(pss_bytes(child.pid) for child in me.children(recursive=True))
            self.peak_bytes = max(self.peak_bytes or 0, total)
            self.samples += 1


def pss_bytes(pid: int) -> int:
    """The process's proportional set size; 0 if it has just ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def end_tree(process: subprocess.Popen[bytes]) -> None:
    """End a command that runs in the background, and whatever it started, gently at first."""
    try:
        whole = [*psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        whole = []
    process.terminate()
    try:
        process.wait(LEFTOVERS_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for left in whole:
        with contextlib.suppress(psutil.NoSuchProcess):
            left.terminate()
    _, alive = psutil.wait_procs(whole, LEFTOVERS_END_S)
    for left in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            left.kill()


def _adopt_orphans() -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")


def _end_leftovers() -> None:
    """Wait for what the command left running (a few helpers end by themselves), then kill it."""
    left = psutil.Process().children(recursive=True)
    _, alive = psutil.wait_procs(left, LEFTOVERS_END_S)
    for process in alive:
        process.kill()
    psutil.wait_procs(alive, LEFTOVERS_END_S)
    try:  # what was adopted must be waited for by us, or it stays a zombie
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
