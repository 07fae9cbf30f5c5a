"""The community's versions and rounds as far as this machine has verified them, and kept on disk.

What a task says of its round and its adapter counts for nothing by itself: the round must be the
one after the last whose end the community has signed, the adapter that of the version that stands
after it (docs/protocol.md §6.4). So a coordinator cannot have an adapter trained from, or a round
begun, without a signed record of it that no later record can contradict.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from nomoat.aggregation.errors import NomoatError, RemoteProtocolError
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.round_end import SECTION, Lineage, LineagePage
from nomoat.aggregation.protocol.wire import COORDINATOR
from nomoat.client.connection.coordinator_api import CoordinatorClient, lineage_and_records
from nomoat.client.membership import kept_records
from nomoat.storage.private import write_private

log = logging.getLogger(__name__)

FILE = "lineage.rec"


@dataclass
class PinnedLineage:
    """lineage.rec in the folder of one community, and the coordinator that is asked for more."""

    folder: Path
    coordinator: CoordinatorClient
    clock: Callable[[], float] = time.time
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __post_init__(self) -> None:
        self._known = read(self.folder)

    def reload(self) -> None:
        """Read the file again, which was set back at the owner's word."""
        with self._lock:
            self._known = read(self.folder)

    @property
    def known(self) -> Lineage | None:
        """The lineage as far as this machine knows it."""
        return self._known

    def refresh(self) -> Lineage:
        """Ask for what was added; RemoteProtocolError if history was rewritten."""
        with self._lock:
            known, now = self._known, int(self.clock())
            found, added = lineage_and_records(self.coordinator, known, now)
            if added:
                before = None if known is None else known.record
                kept_records.note(self.folder, before, added)
            if found != known:
                page = LineagePage((found.record,), found.ended)
                write_private(self.folder / FILE, wire.encode(page).head)
            self._known = found
            return found

    def version_of(self, adapter: bytes, round_number: int) -> bytes | None:
        """The name of what a task of this round trains from, 32 bytes; None if the round is over.

        RemoteProtocolError if the community has not signed that this round is the present one and
        that an adapter of this digest stands.
        """
        found = self._at(round_number, adapter)
        if round_number < found.next_round:
            return None
        if round_number > found.next_round:
            raise _refusal(f"round {round_number} is not the one after {found.ended.round}")
        if found.record.version.adapter != adapter:
            raise _refusal(f"its adapter is not that of version {found.record.version.number}")
        return found.ended.digest

    def is_present(self, adapter: bytes, round_number: int) -> bool:
        """Return True if a candidate of this round may be measured now.

        In round 0 the first version is. RemoteProtocolError as for `version_of`.
        """
        found = self._at(round_number)
        if round_number > found.next_round:
            raise _refusal(f"round {round_number} is not the one after {found.ended.round}")
        first = round_number == found.ended.round == 0
        if first and found.record.version.adapter != adapter:
            raise _refusal("the first adapter to measure is not that of the first version")
        return first or round_number == found.next_round

    def _at(self, round_number: int, adapter: bytes | None = None) -> Lineage:
        """Return what is known; ask anew unless this round is present, and this adapter stands."""
        known = self._known
        if (
            known is not None
            and known.next_round == round_number
            and adapter in {None, known.record.version.adapter}
        ):
            return known
        try:
            return self.refresh()
        except RemoteProtocolError:
            raise
        except NomoatError as problem:
            raise _refusal(f"its signed versions cannot be had: {problem}") from None


def read(folder: Path) -> Lineage | None:
    """Read lineage.rec in a community's folder; None if there is none that can be read."""
    path = folder / FILE
    try:
        page = wire.decode(wire.Packet(path.read_bytes()), LineagePage, str(path))
        return Lineage(page.records[0], page.ended)
    except FileNotFoundError:
        return None
    except (OSError, RemoteProtocolError, IndexError):
        log.warning("%s is damaged: versions are verified from the first on", path)
        return None


def _refusal(reason: str) -> RemoteProtocolError:
    return RemoteProtocolError(COORDINATOR, SECTION, reason)
