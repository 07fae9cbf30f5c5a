"""keys.rec in a community's folder: the changes of its key that this machine has seen, and keeps.

What was seen first wins: a coordinator that takes a change back, or shows another one in its place,
is refused, whoever holds the key of before (docs/protocol.md §5.9).
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from nomoat.aggregation.errors import RemoteProtocolError
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.enrolment import fingerprint
from nomoat.aggregation.protocol.history.key_changes import (
    SECTION,
    CommunityKeys,
    KeyChanges,
    opened,
)
from nomoat.aggregation.protocol.wire import COORDINATOR
from nomoat.client.connection.https import Endpoint, NotServed, call
from nomoat.storage.private import write_private

log = logging.getLogger(__name__)

FILE = "keys.rec"
LIMIT = 64 << 10


class FollowedKeys:
    """The keys of one community as far as this machine has followed them; used by its threads."""

    def __init__(self, folder: Path, keys: CommunityKeys) -> None:
        self._folder = folder
        self._keys = keys
        self._lock = threading.Lock()

    @property
    def keys(self) -> CommunityKeys:
        """Every key the community has had, as far as is known here."""
        return self._keys

    def follow(self, endpoint: Endpoint) -> bool:
        """Ask for further changes and keep them; True if there were any.

        RemoteProtocolError if they are no continuation of those that are known.
        """
        before = self._keys
        with self._lock:
            told = asked(endpoint)
            if told is None:
                return self._keys != before
            after = self._keys.extended(told, COORDINATOR)
            if after != self._keys:
                save(self._folder, after)
                self._keys = after
                log.warning(
                    "the community has changed its key, as the one before has signed: its "
                    "fingerprint stays %s", fingerprint(after.founding),
                )  # fmt: skip
        return after != before


def asked(endpoint: Endpoint) -> KeyChanges | None:
    """Ask for every change of a community's key, unchecked; nothing of ours is sent.

    None from a coordinator of a release that knows of none.
    """
    try:
        answer = wire.Packet(call(endpoint, "GET", "/keys", limit=LIMIT))
    except NotServed:
        return None
    return wire.decode(answer, KeyChanges, COORDINATOR)


def from_invited(endpoint: Endpoint, invited: bytes) -> CommunityKeys:
    """The keys of the community that an invitation names by one of them, every change verified.

    RemoteProtocolError if that is none of its keys.
    """
    told = asked(endpoint)
    keys = CommunityKeys(invited) if told is None else opened(told, COORDINATOR)
    if not keys.holds(invited):
        raise RemoteProtocolError(COORDINATOR, SECTION, "is not the community the invitation names")
    return keys


def save(folder: Path, keys: CommunityKeys) -> None:
    """Keep the changes that are known."""
    write_private(folder / FILE, wire.encode(keys.message()).head)
