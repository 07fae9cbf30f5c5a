"""Keeps state.json up to date from what the connection, the rounds and the policy tell."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from nomoat.aggregation.errors import NomoatError
from nomoat.aggregation.plain_text import one_line
from nomoat.client.home import CommunityFolder
from nomoat.client.round.observer import RoundObserver
from nomoat.client.round.work import TrainWork, Work
from nomoat.client.volunteer.status import VolunteerStatus, read_status
from nomoat.client.volunteer.telling.owner_lines import GOING_ON, OPENING, RETRY
from nomoat.lora.data.row_counts import RowUse
from nomoat.storage.atomic import replacing


class StatusWriter(RoundObserver):
    """Writes one community's status; listens to its connection (message_loop.py) and rounds.

    told: is given each status that is written.
    """

    def __init__(
        self,
        folder: CommunityFolder,
        told: Callable[[VolunteerStatus], None] = lambda _status: None,
    ) -> None:
        self._folder = folder
        self._told = told
        before = read_status(folder)
        doing, why, now = "connecting", "connecting to the coordinator", time.time()
        fresh = VolunteerStatus(os.getpid(), doing, why, now)
        if before is not None:  # counts go on
            fresh = replace(before, pid=os.getpid(), doing=doing, why=why, since=now, data=None)
        self.status = fresh
        self.up = False  # the line to the coordinator
        self._held: tuple[str, float] | None = None  # why the policy waits, since when
        self._queued: str | None = None  # why a job waits for its turn
        self._trained = False  # by the request that is being answered
        self._note: str | None = None  # what came of it instead
        self._asked: str | None = None  # what the owner has to agree to
        self._company: str | None = None  # what the coordinator waits for
        self._insisted: str | None = None  # what keeps this machine from taking part at all
        self._write(fresh)

    def connected(self, node_id: int) -> None:
        """The coordinator knows us."""
        del node_id
        self.up = True
        self.status = replace(self.status, out=None, out_since=0.0)
        if self.status.doing != "working":
            self.say("waiting", OPENING)

    def refuse(self, why: str) -> None:
        """The community lets this machine not take part; `since` is when that was said first."""
        known = self.status.out == why
        since = self.status.out_since if known else time.time()
        self.status = replace(
            self.status, doing="refused", why=why, since=since, out=why, out_since=since
        )
        self._write(self.status)

    def lost(self, reason: str, retry_s: float) -> None:
        """The line broke."""
        self.up = False
        if self.status.doing != "working":
            self.say("connecting", f"{reason}{RETRY} {retry_s:.0f} s")

    def unsent(self, reason: str, retry_s: float) -> None:
        """An answer waits for the line, which broke."""
        self.up = False
        self.say("connecting", f"an answer waits to be sent; {reason}{RETRY} {retry_s:.0f} s")

    def working(self, kind: str) -> None:
        """A message is being answered."""
        self._company = None
        self._trained, self._note = False, None
        self.say("working", kind)

    def trained(self) -> None:
        """An update was trained."""
        self._trained = True
        self.status = replace(self.status, complaint=None)

    def insist(self, complaint: str | None) -> None:
        """Say before all else what keeps this machine from taking part; None: nothing does."""
        if complaint != self._insisted:
            self._insisted = complaint
            self.status = replace(self.status, complaint=complaint)
            self._write(self.status)

    def data(self, note: str | None) -> None:
        """The data was edited or is gone, or all is well again."""
        if note != self.status.data:
            self.status = replace(self.status, data=note)
            self._write(self.status)

    def rows(self, use: str, rows: RowUse) -> None:
        """Rows were encoded, to "train" on or to "measure" with; `rows` says which are not used."""
        told = {**self.status.row_use, use: asdict(rows)}
        if told != self.status.row_use:
            self.status = replace(self.status, row_use=told)
            self._write(self.status)

    def measured(self, loss: float, own_loss: float | None) -> None:
        """The held-out rows were measured, mean nats per token."""
        self.status = replace(self.status, loss=loss, own_loss=own_loss)

    def declined(self, complaint: str) -> None:
        """A task was declined."""
        self._note = f"the last task was declined: {complaint}"
        self.status = replace(self.status, complaint=complaint)

    def failed(self, work: Work, problem: str) -> None:
        """Work could not be done."""
        if isinstance(work, TrainWork):
            self._note = f"training failed in the last round: {problem}"

    def refused(self, problem: str) -> None:
        """A message was refused."""
        self._note = f"the last request was refused: {problem}"
        self.status = replace(self.status, complaint=self._insisted or problem)

    def reported(self) -> None:
        """The update takes part in an aggregation."""
        self.status = replace(self.status, complaint=None)

    def answered(self, kind: str, sent_bytes: int, late: bool) -> None:
        """It was answered: by work, or by saying that there is none, and why."""
        del kind
        status = self.status
        self.status = replace(
            status,
            answered=status.answered + 1,
            late=status.late + late,
            rounds=status.rounds + (self._trained and not late),
            sent_bytes=status.sent_bytes + sent_bytes,
        )
        why = GOING_ON
        if late:
            why = "the last round went on without this volunteer: it was too late"
        self.say("waiting", self._note or why)

    def withheld(self, kind: str, reason: str) -> None:
        """An answer did not leave: it could not be logged, say."""
        self.say("waiting", f"nothing leaves, so {kind} was not answered: {reason}")

    def hold(self, reason: str, since: float) -> None:
        """The policy lets nothing be done; what the line does is not what matters now."""
        self._held = (reason, since)
        self._write(self.status)

    def release(self) -> None:
        """The policy lets work go on."""
        self._held = None
        self._write(self.status)

    def queued(self, reason: str | None) -> None:
        """Somebody else has what would do the work, or that is over."""
        self._queued = reason
        self._write(self.status)

    def ask_owner(self, line: str | None) -> None:
        """Say before all else what the owner has to agree to; None: nothing."""
        if line != self._asked:
            self._asked = line
            self._write(self.status)

    def company(self, waits_for: str | None) -> None:
        """Note what the coordinator waits for, in its words; None: it does not say."""
        if waits_for != self._company:
            self._company = waits_for
            self._write(self.status)

    def version(self, number: int, note: str = "") -> None:
        """A version of the community adapter was fetched and verified."""
        self.status = replace(self.status, version=number, version_note=note)
        self._write(self.status)

    def say(self, doing: str, why: str) -> None:
        """Note what is being done, and why."""
        self.status = replace(self.status, doing=doing, why=why, since=time.time())
        self._write(self.status)

    def _write(self, status: VolunteerStatus) -> None:
        if self._asked is not None and status.doing not in ("refused", "stopped", "connecting"):
            status = replace(status, doing="waiting", why=self._asked)
        elif self._held is not None and status.doing not in ("refused", "stopped"):
            reason, since = self._held
            status = replace(status, doing="waiting", why=reason, since=since)
        elif self._queued is not None and status.doing == "working":
            status = replace(status, doing="waiting", why=self._queued)
        elif self._company is not None and status.why in (OPENING, GOING_ON):
            status = replace(status, why=self._company)
        self._told(status)
        plain = {k: one_line(v) if isinstance(v, str) else v for k, v in asdict(status).items()}
        data = json.dumps(plain).encode()
        try:
            with replacing(self._folder.status, lasting=False) as file:
                file.write(data)
        except NomoatError:  # a full disk must not end training, nor hide that it is full
            with contextlib.suppress(OSError):
                _overwrite(self._folder.status, data)


def _overwrite(path: Path, data: bytes) -> None:
    """Write into the blocks that the file has already; a reader may meet it half written."""
    with path.open("r+b") as file:
        file.write(data.ljust(path.stat().st_size))  # JSON may end in blanks
