"""What a running volunteer says of itself: state.json, written by it alone, read by `status`.

What its owner tells it is in orders.json (control.py); neither side waits for the other.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path

from nomoat.aggregation.errors import NomoatError
from nomoat.client.home import CommunityFolder
from nomoat.client.machine.readings import Orders
from nomoat.storage.atomic import held, replacing

TURN = "its turn: another community is at work on this machine"


@dataclass(frozen=True, slots=True)
class State:
    """What a volunteer is doing. doing: connecting, waiting, working, paused, refused, stopped.

    why: in words, why it is not training. rounds: trained since it joined. sent: payload bytes.
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
    loss: float | None = None  # last measured on rows kept here, of the community's model
    own_loss: float | None = None  # and of this volunteer's own, where it keeps something


def read_state(folder: CommunityFolder) -> State | None:
    """The last state written, None if there is none."""
    try:
        return State(**json.loads(folder.state.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def write_state(folder: CommunityFolder, state: State) -> None:
    """Write the state."""
    _write(folder.state, asdict(state))


def paused(orders: Orders, now: datetime) -> bool:
    """Whether no new training may begin."""
    until = orders.paused_until
    return orders.paused and (until is None or now < until)


def running(folder: CommunityFolder) -> bool:
    """Whether a volunteer of this community runs on this machine."""
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


class StateKeeper:
    """Keeps state.json up to date; a fleet listener (client/connection/message_loop.py)."""

    def __init__(self, folder: CommunityFolder) -> None:
        self._folder = folder
        before = read_state(folder)
        fresh = State(os.getpid(), "connecting", "connecting to the coordinator", time.time())
        if before is not None:
            fresh = replace(
                fresh,
                rounds=before.rounds,
                answered=before.answered,
                late=before.late,
                sent_bytes=before.sent_bytes,
                version=before.version,
                loss=before.loss,
                own_loss=before.own_loss,
            )
        self.state = fresh
        self._held: tuple[str, float] | None = None  # why the policy waits, since when
        self._queued = False
        self._write(fresh)

    def connected(self, node_id: int) -> None:
        """The coordinator knows us."""
        del node_id
        if self.state.doing != "working":
            self.say("waiting", "waiting for the coordinator to open a round")

    def lost(self, reason: str, retry_s: float) -> None:
        """The line broke."""
        if self.state.doing != "working":
            self.say("connecting", f"{reason}; next try in {retry_s:.0f} s")

    def working(self, kind: str) -> None:
        """A message is being answered."""
        self.say("working", kind)

    def answered(self, kind: str, sent_bytes: int, late: bool) -> None:
        """It was answered."""
        state = self.state
        self.state = replace(
            state,
            answered=state.answered + 1,
            late=state.late + late,
            rounds=state.rounds + (kind == "train.local" and not late),
            sent_bytes=state.sent_bytes + sent_bytes,
        )
        why = "the last round went on without this volunteer: it was too late" if late else (
            "waiting for the coordinator to go on"
        )  # fmt: skip
        self.say("waiting", why)

    def overtaken(self) -> None:
        """The coordinator asks for something new; what is being done is not wanted any more."""

    def withheld(self, kind: str, reason: str) -> None:
        """An answer did not leave, because it could not be logged."""
        self.say("waiting", f"nothing leaves: {kind} could not be logged ({reason})")

    def hold(self, reason: str, since: float) -> None:
        """The policy lets nothing be done; what the line does is not what matters now."""
        self._held = (reason, since)
        self._write(self.state)

    def release(self) -> None:
        """The policy lets work go on."""
        self._held = None
        self._write(self.state)

    def queued(self, waits: bool) -> None:
        """Another community has what would do the work, or that is over."""
        self._queued = waits
        self._write(self.state)

    def version(self, number: int) -> None:
        """A version of the community adapter was fetched and verified."""
        self.state = replace(self.state, version=number)
        self._write(self.state)

    def measured(self, loss: float, own_loss: float | None) -> None:
        """The held-out rows were measured, mean nats per token."""
        self.state = replace(self.state, loss=loss, own_loss=own_loss)

    def say(self, doing: str, why: str) -> None:
        """Note what is being done, and why."""
        state = replace(self.state, doing=doing, why=why, since=time.time())
        self.state = state
        self._write(state)

    def _write(self, state: State) -> None:
        if self._held is not None and state.doing not in ("refused", "stopped"):
            reason, since = self._held
            state = replace(state, doing="waiting", why=reason, since=since)
        elif self._queued and state.doing == "working":
            state = replace(state, doing="waiting", why=TURN)
        try:
            write_state(self._folder, state)
        except NomoatError:  # a full disk must not end a training, nor hide that it is full
            with contextlib.suppress(OSError):
                _overwrite(self._folder.state, asdict(state))


def _overwrite(path: Path, content: object) -> None:
    """Write into the blocks that the file has already; a reader may meet it half written."""
    data = json.dumps(content).encode()
    with path.open("r+b") as file:
        file.write(data.ljust(path.stat().st_size))  # JSON may end in blanks


def _write(path: Path, content: object) -> None:
    with replacing(path) as file:
        file.write(json.dumps(content).encode())
