"""The roster a session of secure aggregation is about: verified, and the same on both sides.

An offer names the roster's head. People may join while a round runs, so the newest roster is not
always the one the coordinator means; any head of the log this machine has verified will do.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from flwr.app import Context, Message

from nomoat.aggregation.protocol import roster as log
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.roster import SignedEntry
from nomoat.aggregation.protocol.wire import COORDINATOR
from nomoat.aggregation.secagg.messages import SessionOffer
from nomoat.aggregation.secagg.parameters import RosterView
from nomoat.client.connection.coordinator_api import CoordinatorClient, extend_roster
from nomoat.client.membership.roster_file import RosterFile, long_known
from nomoat.client.round.sealed_app import App
from nomoat.flower.packets import packet_of

DAY_S = 86_400.0


@dataclass
class RosterCache:
    """The log as far as it was verified, and the head that an offer has named."""

    file: RosterFile
    coordinator: CoordinatorClient
    clock: Callable[[], float] = time.time
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __post_init__(self) -> None:
        self._entries: list[SignedEntry] = self.file.entries()
        self._newest = log.extend(log.Roster.empty(self.coordinator.keys), self._entries)
        self._selected = self._newest

    def reload(self) -> None:
        """Read the file again, which was set back at the owner's word."""
        with self._lock:
            self.__post_init__()

    @property
    def newest(self) -> log.Roster:
        """The roster as far as this machine knows it."""
        return self._newest

    def refresh(self) -> log.Roster:
        """Ask for what was added; RemoteProtocolError if history was rewritten."""
        with self._lock:
            roster, added = extend_roster(self.coordinator, self._newest, int(self.clock()))
            if added:
                self.file.append(added, self.clock())
                self._entries += added
            self._newest = self._selected = roster
            return roster

    def select(self, head: bytes) -> None:
        """Take the roster with this head for the next session, if the log has or gets it."""
        if head != self._newest.head:
            self.refresh()
        with self._lock:
            self._selected = self._at(head)

    def current(self) -> RosterView:
        """The selected roster, as secure aggregation wants it: who may take part by it, and still.

        An offer may name an earlier head, since people join while a round runs; who has been held,
        banned or has left meanwhile, as far as this machine knows, does not count by it.
        """
        selected, still = self._selected, self._newest.approved()
        members = {key: name for key, name in selected.approved().items() if key in still}
        return RosterView(selected.head, members)

    def long_known(self, days: float) -> frozenset[bytes]:
        """The identities that this machine has known for `days`."""
        return long_known(self._entries, self.file.sightings(), self.clock() - days * DAY_S)

    def _at(self, head: bytes) -> log.Roster:
        if head == self._newest.head:
            return self._newest
        for length in range(len(self._entries), 0, -1):
            if log.digest(self._entries[length - 1].entry) == head:
                empty = log.Roster.empty(self.coordinator.keys)
                return log.extend(empty, self._entries[:length])
        return self._newest  # the offer will be refused: its roster is none of ours


def with_offered_roster(app: App, cache: RosterCache) -> App:
    """`app`, with the roster that an offer names selected before the app sees the offer."""
    kind = wire.action_of(wire.kind_of(SessionOffer))

    def answer(message: Message, context: Context) -> Message:
        if message.metadata.message_type == kind:
            packet = packet_of(message, COORDINATOR)
            cache.select(wire.decode(packet, SessionOffer, COORDINATOR).roster_root)
        return app(message, context)

    return answer
