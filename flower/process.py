"""Flower's process-wide state: which task signs messages, and what it logs."""

from __future__ import annotations

import logging

from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.supercore.task_identity import TaskIdentity


def speak_as_coordinator(run_id: int, task_id: int) -> None:
    """Stamp every message made from now on with this run; a process has one run at a time."""
    TaskIdentity.task_id, TaskIdentity.run_id = task_id, run_id
    TaskIdentity.node_id = SUPERLINK_NODE_ID


def silence() -> None:
    """Keep Flower's log lines out: it logs every request, and every mistake a stranger makes."""
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
