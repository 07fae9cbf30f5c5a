"""The status of a running volunteer: state.json, written by it alone, read by `nomoat status`.

What its owner tells it is in orders.json (machine/owner_orders.py); neither side waits for the
other. A lock file says that it runs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from nomoat.aggregation.errors import NomoatError
from nomoat.client.home import CommunityFolder
from nomoat.client.machine.readings import Orders
from nomoat.storage.atomic import held

ERRANDS: Final = (
    ("train.", "training the adapter on your rows"),
    ("evaluate.", "measuring an adapter on the rows you hold out"),
    ("query.", "taking part in this round's sum"),
)


def in_words(why: str) -> str:
    """Say a status's why for its owner, where it is the kind of a message."""
    return next((words for start, words in ERRANDS if why.startswith(start)), why)


@dataclass(frozen=True, slots=True)
class VolunteerStatus:
    """A volunteer's activity: connecting, waiting, working, paused, refused or stopped.

    why: in words, why it is not training. rounds: trained since it joined. sent_bytes: payload.
    out: why the community lets it not take part, since out_since; None once it does.
    complaint: what this machine last declined or refused, and why; None once it took part again.
    """

    pid: int
    doing: str
    why: str
    since: float
    rounds: int = 0
    answered: int = 0
    late: int = 0
    sent_bytes: int = 0
    version: int | None = None
    version_note: str = ""  # what the community says of it, where it is no round's
    loss: float | None = None  # last measured on rows kept here, of the community's model
    own_loss: float | None = None  # and of this volunteer's own, where it keeps something
    complaint: str | None = None
    out: str | None = None
    out_since: float = 0.0
    data: str | None = None  # what has become of it since this volunteer started
    # What a round's length made of the rows, by "train" and "measure"; each a row_counts.RowUse.
    row_use: dict[str, dict[str, Any]] = field(default_factory=dict)


def read_status(folder: CommunityFolder) -> VolunteerStatus | None:
    """The last status written, None if there is none."""
    try:
        return VolunteerStatus(**json.loads(folder.status.read_text()))
    except (OSError, ValueError, TypeError):
        return None


@dataclass(frozen=True, slots=True)
class Activity:
    """A volunteer's activity as its owner is told: of a process that runs, or that has ended."""

    doing: str
    why: str
    running: bool
    finishing: bool = False


def activity(
    status: VolunteerStatus | None, orders: Orders, alive: bool, now: datetime
) -> Activity:
    """The activity at `now`. status: as last written; alive: its process still holds the lock."""
    if not alive:
        return _ended(status)
    if paused(orders, now) and (status is None or status.doing != "working"):
        return Activity("paused", _until(orders), alive, orders.finish)
    if status is None:
        return Activity("starting", "loading what trains", alive, orders.finish)
    return Activity(status.doing, status.why, alive, orders.finish)


def _ended(status: VolunteerStatus | None) -> Activity:
    if status is None:
        return Activity("stopped", "nomoat run starts it", False)
    if status.doing == "refused":
        return Activity("refused", status.why, False)
    why = status.why if status.doing == "stopped" else "killed, or the machine went down"
    return Activity("stopped", f"{why}; nomoat run starts it again", False)


def _until(orders: Orders) -> str:
    if orders.paused_until is None:
        return "until nomoat resume"
    return f"until {orders.paused_until.astimezone():%Y-%m-%d %H:%M}"


def paused(orders: Orders, now: datetime) -> bool:
    """Return True if the owner's pause holds at `now`."""
    until = orders.paused_until
    return orders.paused and (until is None or now < until)


def running(folder: CommunityFolder) -> bool:
    """Return True if a volunteer of this community runs on this machine."""
    if not folder.lock.exists():
        return False
    try:
        with alone(folder):
            return False
    except NomoatError:
        return True


@contextmanager
def alone(folder: CommunityFolder) -> Iterator[None]:
    """Be the only volunteer of this community on this machine; NomoatError if there is one."""
    with held(folder.lock, f"{folder.name()} is running on this machine already"):
        yield
