"""A community brought back from a backup, as it says so itself under its key (§6.5).

What volunteers have seen since the backup was made is gone: their newest version, and their roster,
are no longer the community's. The statement names what stands instead; a volunteer that holds more
than it names takes it only at its owner's word.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from nomoat.aggregation.errors import RemoteProtocolError
from nomoat.aggregation.protocol import lineage, round_end, wire
from nomoat.aggregation.protocol.enrolment import Digest, Signature, UnixTime
from nomoat.aggregation.protocol.history.key_changes import CommunityKeys
from nomoat.aggregation.protocol.lineage import SignedVersion
from nomoat.aggregation.protocol.round_end import RoundEnd
from nomoat.aggregation.protocol.signing import BadSignature, SigningKey, verify
from nomoat.aggregation.protocol.wire import COORDINATOR

SECTION = "§6.5"
LABEL = "community.restored"
MOST = 1_000


@wire.message("community.restored")
@dataclass(frozen=True, slots=True)
class Restoration:
    """The community was restored, for the `index`-th time: this version stands, after this round.

    roster_length, roster_head: of the roster it was restored with. at: unix time.
    """

    index: Annotated[int, wire.Limit(1, MOST)]
    version: SignedVersion
    ended: RoundEnd
    roster_length: Annotated[int, wire.Limit(0, 1_000_000)]
    roster_head: Digest
    at: UnixTime
    signature: Signature


@wire.message("community.restorations")
@dataclass(frozen=True, slots=True)
class Restorations:
    """Every time a community was restored, in order."""

    restorations: Annotated[tuple[Restoration, ...], wire.Limit(0, MOST)]


def sign(blank: Restoration, key: SigningKey) -> Restoration:
    """Put a statement under the community's signature; `blank` has any in its place."""
    return replace(blank, signature=key.sign(LABEL, _bytes(blank)))


def check(found: Restoration, keys: CommunityKeys) -> Restoration:
    """Return a statement if the community signed it and all it names; else RemoteProtocolError."""
    public = keys.of_version(found.version.version.number)
    try:
        verify(public, found.signature, LABEL, _bytes(found))
    except BadSignature:
        reason = "the statement of a restored backup is not signed by the community"
        raise RemoteProtocolError(COORDINATOR, SECTION, reason) from None
    lineage.check(found.version, public, COORDINATOR)
    round_end.check(found.ended, keys)
    if found.ended.version != found.version.digest:
        reason = "the statement of a restored backup names two versions"
        raise RemoteProtocolError(COORDINATOR, SECTION, reason)
    return found


def _bytes(restoration: Restoration) -> bytes:
    return wire.encode(replace(restoration, signature=bytes(64))).head
