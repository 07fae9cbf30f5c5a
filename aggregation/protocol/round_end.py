"""The end of a round, as a community signs it: which version stands after it (§6.4).

    pinned = extend(pinned, page, keys)     # raises: not a continuation of what is known here
    pinned.next_round, pinned.record.version.adapter     # what may be trained next, and from where

A round that was committed has a version record; one that was abandoned leaves none, and this
statement alone. A volunteer trains in the round after the last that ended, from the version that
stands, so a coordinator puts its name to every adapter it has trained from.
"""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass
from typing import Annotated

from nomoat.aggregation.errors import RemoteProtocolError
from nomoat.aggregation.protocol import lineage, wire
from nomoat.aggregation.protocol.enrolment import Digest, Signature
from nomoat.aggregation.protocol.history.key_changes import CommunityKeys
from nomoat.aggregation.protocol.lineage import PAGE, SignedVersion
from nomoat.aggregation.protocol.signing import BadSignature, SigningKey, verify
from nomoat.aggregation.protocol.wire import COORDINATOR

SECTION = "§6.4"
LABEL = "round.end"


@wire.message("round.end")
@dataclass(frozen=True, slots=True)
class RoundEnd:
    """Round `round` has ended, and the version whose record has this digest stands."""

    round: Annotated[int, wire.Limit(0, 1_000_000)]
    version: Digest
    signature: Signature

    @property
    def digest(self) -> bytes:
        """The name of a training's start: this version, after this round; 32 bytes."""
        return hashlib.sha256(b"".join(_parts(self))).digest()


@wire.message("adapter.lineage")
@dataclass(frozen=True, slots=True)
class LineagePage:
    """Version records in order of their number, and the end of the last round."""

    records: Annotated[tuple[SignedVersion, ...], wire.Limit(0, PAGE)]
    ended: RoundEnd


@dataclass(frozen=True, slots=True)
class Lineage:
    """A community's newest version and last ended round, as far as they were verified."""

    record: SignedVersion
    ended: RoundEnd

    @property
    def next_round(self) -> int:
        """The number of the present round: nothing else may be trained or measured."""
        return self.ended.round + 1


def sign_end(number: int, standing: SignedVersion, key: SigningKey) -> RoundEnd:
    """Say under the community's key that `standing` stands after round `number`."""
    blank = RoundEnd(number, standing.digest, bytes(64))
    return RoundEnd(number, standing.digest, key.sign(LABEL, *_parts(blank)))


def extend(known: Lineage | None, page: LineagePage, keys: CommunityKeys) -> Lineage:
    """Return the lineage that `page` continues `known` to.

    RemoteProtocolError if a record does not follow, or the end of a round is not signed, is of an
    earlier round than the one known, or names another version than the newest.
    """
    before = None if known is None else known.record
    newest = lineage.check_chain(before, page.records, keys)
    ended = check(page.ended, keys)
    if newest is None or ended.version != newest.digest:
        raise _refusal(f"after round {ended.round} another version stands than the newest")
    if ended.round < newest.version.round:
        raise _refusal(f"version {newest.version.number} is of a round after {ended.round}")
    if known is not None and ended.round < known.ended.round:
        raise _refusal(f"round {known.ended.round} had ended already, and now {ended.round} has")
    return Lineage(newest, ended)


def check(ended: RoundEnd, keys: CommunityKeys) -> RoundEnd:
    """Return the end of a round if the community signed it; RemoteProtocolError if not."""
    for public in keys.of_round(ended.round):
        with contextlib.suppress(BadSignature):
            verify(public, ended.signature, LABEL, *_parts(ended))
            return ended
    raise _refusal(f"the end of round {ended.round} is not signed by the community")


def _parts(ended: RoundEnd) -> tuple[bytes, ...]:
    return (ended.round.to_bytes(4, "big"), ended.version)


def _refusal(reason: str) -> RemoteProtocolError:
    return RemoteProtocolError(COORDINATOR, SECTION, reason)
