"""The cost of a volunteer to its owner while it has nothing to do: processor time and memory."""

from __future__ import annotations

import time
from dataclasses import dataclass

import psutil

MB = 1e6


@dataclass(frozen=True)
class Idle:
    """cpu_fraction of one core; resident memory of the volunteer's processes, 10⁶ bytes."""

    cpu_fraction: float
    rss_mb: float
    processes: int


def watch(pid: int, seconds: float) -> Idle:
    """Look at a process and all it has started for `seconds`."""
    before, started = cpu_s(pid), time.monotonic()
    time.sleep(seconds)
    used, lasted = cpu_s(pid) - before, time.monotonic() - started
    rss = sum(process.memory_info().rss for process in _tree(pid))
    return Idle(used / lasted, rss / MB, len(_tree(pid)))


def cpu_s(pid: int) -> float:
    """Processor time that a process and those it has started have used, seconds."""
    return float(sum(sum(process.cpu_times()[:2]) for process in _tree(pid)))


def peak_mb(pid: int) -> float:
    """The most memory a process has had resident since it started (VmHWM), 10⁶ bytes."""
    with open(f"/proc/{pid}/status") as lines:
        [line] = [line for line in lines if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024 / MB


def _tree(pid: int) -> list[psutil.Process]:
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]
