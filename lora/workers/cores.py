"""The number of single-threaded workers this process may keep busy."""

from __future__ import annotations

import os
import sys
from pathlib import Path

MAX_DEFAULT_WORKERS = 8


def default_workers() -> int:
    """Cores this process may use (affinity and container quota), at most 8."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        cores = os.cpu_count() or 1
    return max(1, min(cores, _quota(), MAX_DEFAULT_WORKERS))


def _quota() -> int:
    """Whole cores of the container's CPU quota (cgroup v2), or many if there is none."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return int(quota) // int(period)
    except (OSError, ValueError):  # "max": no quota
        return sys.maxsize
