"""Beside the line: fetches the community adapter's newest version, and receipts."""

from __future__ import annotations

import logging
import threading
import time

from nomoat.aggregation.errors import NomoatError
from nomoat.aggregation.protocol import lineage
from nomoat.client.connection import coordinator_api
from nomoat.client.membership.pinned_lineage import PinnedLineage
from nomoat.client.sent.log_file import SentLog
from nomoat.client.volunteer.kit import Kit
from nomoat.client.volunteer.status_writer import StatusWriter
from nomoat.storage.atomic import replacing

log = logging.getLogger(__name__)

LOOK_S = 0.2
FOLLOW_S = (0.0, 3.0, 15.0, 60.0)


class VersionFollower(threading.Thread):
    """Looks for a new version some time after each of this volunteer's answers."""

    def __init__(
        self, kit: Kit, versions: PinnedLineage, status: StatusWriter, stop: threading.Event
    ) -> None:
        super().__init__(name=f"{threading.current_thread().name}/follower", daemon=True)
        self._kit = kit
        self._lineage = versions
        self._status = status
        self._stop_all = stop
        self._seen = -1
        self._due: list[float] = []

    def run(self) -> None:
        """Look now and then until everything stops."""
        while not self._stop_all.wait(LOOK_S):
            status, now = self._status.status, time.monotonic()
            if status.answered != self._seen and status.doing == "waiting":
                self._seen = status.answered
                # A version and its receipts come some time after this volunteer's last answer.
                self._due = [now + seconds for seconds in FOLLOW_S]
            if self._due and now >= self._due[0]:
                self._due = [at for at in self._due if at > now]
                self._follow()

    def _follow(self) -> None:
        try:
            number = fetch_newest(self._kit, self._lineage)
            fetch_receipts(self._kit)
        except NomoatError as problem:
            log.warning("the newest adapter and receipts were not fetched: %s", problem)
            return
        self._status.version(number)


def fetch_receipts(kit: Kit, first_round: int | None = None) -> None:
    """Fetch, verify and keep the receipts from a round on; None: those that are not here yet."""
    coordinator, sent_log = kit.coordinator, SentLog(kit.folder.root)
    if first_round is None:
        mine = coordinator.identity.public
        first_round = sent_log.newest_receipt(coordinator.community, mine)
    for signed in coordinator_api.receipts(coordinator, first_round, int(time.time())):
        sent_log.keep(signed)


def fetch_newest(kit: Kit, versions: PinnedLineage) -> int:
    """Fetch and verify the newest community adapter; its number."""
    folder, now = kit.folder, int(time.time())
    record = versions.refresh().record
    path = folder.adapter(record)
    if not path.exists():
        adapter = coordinator_api.download(kit.coordinator, record, now)
        with replacing(path) as file:
            file.write(lineage.to_file(adapter))
        for old in path.parent.glob("*.adapter"):
            if old != path:
                old.unlink()
    folder.save_version(record)
    return record.version.number
