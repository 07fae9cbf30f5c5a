"""The process a side of the line runs in: Flower's state of it, its log, its threads' turns."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.supercore.task_identity import TaskIdentity

TURN_S = 0.0005


def speak_as_coordinator(run_id: int, task_id: int) -> None:
    """Stamp every message made from now on with this run; a process has one run at a time."""
    TaskIdentity.task_id, TaskIdentity.run_id = task_id, run_id
    TaskIdentity.node_id = SUPERLINK_NODE_ID


def silence() -> None:
    """Keep Flower's log lines out: it logs every request, and every mistake a stranger makes."""
    logging.getLogger("flwr").setLevel(logging.CRITICAL)


@contextmanager
def quick_turns() -> Iterator[None]:
    """Let threads hand the interpreter on after TURN_S while the block runs, instead of 5 ms.

    Whoever serves requests waits for it after every system call. While another thread computes,
    that is a turn each time, and dozens of them in a round trip.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(min(before, TURN_S))
    try:
        yield
    finally:
        sys.setswitchinterval(before)
