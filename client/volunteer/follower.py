"""Beside the line: fetches the community adapter's newest version, and receipts."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from nomoat.aggregation.errors import NomoatError, Refused, RemoteProtocolError
from nomoat.aggregation.protocol import lineage
from nomoat.client.connection import coordinator_api
from nomoat.client.connection.https import one_connection
from nomoat.client.membership import restored, version_history
from nomoat.client.membership.pinned_lineage import PinnedLineage
from nomoat.client.membership.roster_cache import RosterCache
from nomoat.client.round.last_measured import LastMeasured
from nomoat.client.sent.log_file import SentLog
from nomoat.client.training.base_loss import BaseLossFile
from nomoat.client.volunteer.kit import Kit
from nomoat.client.volunteer.status_writer import StatusWriter
from nomoat.storage.atomic import replacing

log = logging.getLogger(__name__)

LOOK_S = 0.2
TEND_S = 10.0  # between two looks at the data
FIRST_S = 2.0  # before the first
FOLLOW_S = (0.5, 3.0, 15.0, 60.0)  # not between two messages of a round
REFUSED_S = 600.0  # until it is tried again by who is not let in, unless the line is back before


@dataclass(frozen=True)
class Known:
    """A community as far as this machine has verified it: its roster, its versions and rounds.

    measured: the candidate that was measured last.
    """

    roster: RosterCache
    lineage: PinnedLineage
    measured: LastMeasured = field(default_factory=LastMeasured)


class VersionFollower(threading.Thread):
    """Looks for a new version some time after each of this volunteer's answers."""

    def __init__(
        self,
        kit: Kit,
        known: Known,
        status: StatusWriter,
        stop: threading.Event,
        tend: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(name=f"{threading.current_thread().name}/follower", daemon=True)
        self._kit = kit
        self._known = known
        self._accepted = restored.accepted(kit.folder.root)
        self._handed = self._accepted is None
        self._status = status
        self._stop_all = stop
        self._tend = tend
        self._tended = time.monotonic() - TEND_S + FIRST_S
        self._seen = -1
        self._due: list[float] = []
        self._was_up = False
        self._refused = False  # the last time, and the log says so
        self._returned = False  # to the line, and nothing was asked since
        self._receipted: int | None = None  # the last round there is a receipt of, once known

    def run(self) -> None:
        """Look now and then until everything stops."""
        while not self._stop_all.wait(LOOK_S):
            self._heed_owner()
            status, now = self._status.status, time.monotonic()
            if now - self._tended >= TEND_S:
                self._tended = now
                self._tend()
            if status.answered != self._seen and status.doing == "waiting":
                self._seen = status.answered
                # A version and its receipts come some time after this volunteer's last answer.
                self._due = [now + seconds for seconds in FOLLOW_S]
            if self._status.up and not self._was_up:
                self._returned, self._due = True, [now, *self._due]
            self._was_up = self._status.up
            if self._due and now >= self._due[0]:
                self._due = [at for at in self._due if at > now]
                with one_connection():
                    self._follow()

    def _heed_owner(self) -> None:
        """Begin again from what is on disk if the owner has accepted a restored backup."""
        now = restored.accepted(self._kit.folder.root)
        if now != self._accepted:
            self._accepted, self._handed, self._receipted = now, False, None
            self._known.roster.reload()
            self._known.lineage.reload()
            self._status.insist(None)
            self._due = [time.monotonic()]

    def _follow(self) -> None:
        kit, known = self._kit, self._known
        try:
            known.roster.refresh()
            number, note = fetch_newest(kit, known.lineage, known.measured), ""
            if (record := kit.folder.version()) is not None:
                note = record.version.note if number else ""
                base = BaseLossFile.within(kit.folder.root).loss()
                version_history.note(kit.folder.root, record, self._status.status.loss, base)
            if self._accepted is not None and not self._handed:
                restored.hand_back(kit.folder, kit.coordinator)
                self._handed = True
            self._receipted = fetch_receipts(kit, self._receipted)
            if self._returned:  # all that was seen here is in what there is now
                restored.acknowledge(kit.folder, kit.coordinator)
                self._returned = False
        except RemoteProtocolError as problem:
            told = restored.advice(kit.folder, kit.coordinator, problem)
            log.warning("%s", told)
            self._status.insist(told)
        except Refused as problem:
            if not self._refused:
                log.warning("the newest adapter and receipts are not fetched: %s", problem)
            self._refused, self._due = True, [time.monotonic() + REFUSED_S]
        except NomoatError as problem:
            log.warning("the newest adapter and receipts were not fetched: %s", problem)
        else:
            self._refused = False
            self._status.insist(None)
            self._status.version(number, note)


def fetch_receipts(kit: Kit, first_round: int | None = None) -> int:
    """Fetch, verify and keep the receipts from a round on; the last round there is one of.

    first_round: None for those that are not here yet, by reading all that are.
    """
    coordinator, sent_log = kit.coordinator, SentLog(kit.folder.root)
    if first_round is None:
        mine = coordinator.identity.public
        first_round = sent_log.newest_receipt(coordinator.keys, mine)
    for signed in coordinator_api.receipts(coordinator, first_round, int(time.time())):
        sent_log.keep(signed)
        first_round = max(first_round, signed.receipt.round)
    return first_round


def fetch_newest(kit: Kit, versions: PinnedLineage, measured: LastMeasured | None = None) -> int:
    """Have the newest community adapter, verified, in its file; its number.

    measured: one that this machine has just measured is not fetched again.
    """
    folder, now = kit.folder, int(time.time())
    record = versions.refresh().record
    path = folder.adapter(record)
    if not _whole(path, record.version.adapter):
        adapter = None if measured is None else measured.adapter(record.version.adapter)
        if adapter is None:
            adapter = coordinator_api.download(kit.coordinator, record, now)
        with replacing(path) as file:
            file.write(lineage.to_file(adapter))
        for old in path.parent.glob("*.adapter"):
            if old != path:
                old.unlink()
    if folder.version() != record:
        folder.save_version(record)
    return record.version.number


@functools.lru_cache(maxsize=8)
def _seen_whole(path: Path, digest: bytes, _size: int, _time: int) -> bool:
    try:
        lineage.from_file(path.read_bytes(), digest, str(path))
    except (OSError, RemoteProtocolError):
        return False
    return True


def _whole(path: Path, digest: bytes) -> bool:
    """Return True if a file holds the adapter of this digest; read once while it is unchanged."""
    try:
        found = path.stat()
    except OSError:
        return False
    return _seen_whole(path, digest, found.st_size, found.st_mtime_ns)
