"""The version of another community that a community began with: named, kept, checked (§6.3).

The note of the child's version 0, under the child's signature, names the parent's record by hash;
the record itself, under the parent's signature, is kept beside it. Whoever holds both needs no
trust in either to know that one grew from the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from nomoat.aggregation.errors import RemoteProtocolError
from nomoat.aggregation.protocol import lineage, wire
from nomoat.aggregation.protocol.enrolment import PublicKey
from nomoat.aggregation.protocol.lineage import SignedVersion, Version

SECTION = "§6.3"
BEGUN_WITH = "begun with version "


@wire.message("adapter.origin")
@dataclass(frozen=True, slots=True)
class Origin:
    """A version, and the community that signed it: its name and its key."""

    name: Annotated[str, wire.Limit(1, 80)]
    community: PublicKey
    record: SignedVersion

    @property
    def note(self) -> str:
        """The note of a version 0 that begins with this one; 200 characters at most."""
        number, record = self.record.version.number, self.record.digest.hex()
        return f"{BEGUN_WITH}{number} of {self.name}, record {record}"


def to_file(origin: Origin) -> bytes:
    """Return the bytes at rest."""
    return wire.encode(origin).head


def from_file(data: bytes, peer: str) -> Origin:
    """The origin in a file, its record under its community's signature; else RemoteProtocolError.

    peer: the name of who handed the file over.
    """
    origin = wire.decode(wire.Packet(data), Origin, peer)
    lineage.check(origin.record, origin.community, peer)
    return origin


def check_child(origin: Origin, first: Version, peer: str) -> None:
    """Raise RemoteProtocolError unless `first`, a version 0, is `origin` begun anew.

    It names the record, holds the same adapter, and stands on the same base.
    """
    parent = origin.record.version
    if first.note != origin.note:
        raise RemoteProtocolError(peer, SECTION, "version 0 does not name the kept origin")
    if (first.adapter, first.base_hash) != (parent.adapter, parent.base_hash):
        reason = "version 0 is not the adapter of its origin, or has another base"
        raise RemoteProtocolError(peer, SECTION, reason)
