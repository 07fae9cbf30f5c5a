"""Questions to members of a restored community about what they still hold (§6.6).

    volunteer → coordinator     Holding: the newest it has verified
    coordinator → volunteer     WantedPieces: what of that is lacking; empty if nothing is

All that is told and sent is under the community's own signature: whoever sends it can make none of
it, and whoever asks for it has once published it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from nomoat.aggregation.errors import RemoteProtocolError
from nomoat.aggregation.protocol import lineage, roster, round_end, wire
from nomoat.aggregation.protocol.history import restoration
from nomoat.aggregation.protocol.history.key_changes import CommunityKeys
from nomoat.aggregation.protocol.history.restoration import Restoration
from nomoat.aggregation.protocol.lineage import PAGE, SignedVersion
from nomoat.aggregation.protocol.roster import SignedEntry
from nomoat.aggregation.protocol.round_end import RoundEnd

SECTION = "§6.6"
PART_BYTES = 4 << 20  # of an adapter's file, in one request
DIGEST_BYTES = 32


@wire.message("recovery.holding", grows=True)
@dataclass(frozen=True, slots=True)
class Holding:
    """The newest that one member has verified, and has on its machine.

    kept: how many records it has without a gap, up to `newest`. adapter: the digest of the one it
    has; empty if none. entry: the last of its roster. restored: the statement it accepted last.
    """

    newest: SignedVersion | None
    ended: RoundEnd | None
    kept: Annotated[int, wire.Limit(0, PAGE)]
    adapter: Annotated[bytes, wire.Limit(0, DIGEST_BYTES)]
    entry: SignedEntry | None
    restored: Restoration | None


@wire.message("recovery.wanted", grows=True)
@dataclass(frozen=True, slots=True)
class WantedPieces:
    """The parts of a Holding that are to be sent.

    versions: records from this number on, with the RoundEnd; 0: none. entries: of the roster, from
    this index on; -1: none. adapter: the digest of its file; empty: none. after: bytes of that
    file that have come already.
    """

    versions: Annotated[int, wire.Limit(0, 1_000_000)] = 0
    entries: Annotated[int, wire.Limit(-1, roster.MAX_ENTRIES)] = -1
    adapter: Annotated[bytes, wire.Limit(0, DIGEST_BYTES)] = b""
    after: Annotated[int, wire.Limit(0, 1 << 40)] = 0

    @property
    def nothing(self) -> bool:
        """True if nothing is wanted."""
        return not self.versions and self.entries < 0 and not self.adapter


def check(holding: Holding, keys: CommunityKeys, peer: str) -> Holding:
    """Return a Holding if the community signed all that it holds; else RemoteProtocolError."""
    if holding.newest is not None:
        lineage.check(holding.newest, keys.of_version(holding.newest.version.number), peer)
    if holding.ended is not None:
        round_end.check(holding.ended, keys)
    if holding.entry is not None:
        roster.check_signature(holding.entry, keys)
    if holding.restored is not None:
        restoration.check(holding.restored, keys)
    standing = None if holding.newest is None else holding.newest.digest
    if (None if holding.ended is None else holding.ended.version) != standing:
        reason = "the round end it holds is of another version than the newest"
        raise RemoteProtocolError(peer, SECTION, reason)
    return holding
