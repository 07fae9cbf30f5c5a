"""Terms in editions: what a community asks for now, numbered, under its signature (§5.7).

Who joined agreed to the edition of that day. When a later one asks for more, its owner is asked
again, and nothing is trained under it until it was agreed to.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from nomoat.aggregation.errors import RemoteProtocolError
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.enrolment import Signature, UnixTime, community_id
from nomoat.aggregation.protocol.signing import BadSignature, SigningKey, verify
from nomoat.aggregation.protocol.wire import COORDINATOR
from nomoat.aggregation.protocol.work_terms import WorkTerms

SECTION = "§5.7"
LABEL = "community.edition"
MOST = 1_000_000


@wire.message("community.edition")
@dataclass(frozen=True, slots=True)
class TermsEdition:
    """The terms that hold from `at` on. least: participants of a session, where `secure`."""

    number: Annotated[int, wire.Limit(1, MOST)]
    at: UnixTime
    secure: bool
    least: Annotated[int, wire.Limit(2, 10_000)]
    allow_weak: bool
    work: WorkTerms
    signature: Signature

    def content(self) -> bytes:
        """Return what tells one edition from another: all but number, time and signatures."""
        work = replace(self.work, signature=bytes(64))
        return wire.encode(replace(self, number=1, at=0, work=work, signature=bytes(64))).head


def sign(edition: TermsEdition, key: SigningKey) -> TermsEdition:
    """Put an edition under the community's signature."""
    return replace(edition, signature=key.sign(LABEL, *_parts(edition, key.public)))


def check(edition: TermsEdition, public: bytes) -> TermsEdition:
    """Return `edition` if the community with this key signed it; else RemoteProtocolError."""
    try:
        verify(public, edition.signature, LABEL, *_parts(edition, public))
    except BadSignature:
        reason = "its terms are not signed by the community"
        raise RemoteProtocolError(COORDINATOR, SECTION, reason) from None
    return edition


def _parts(edition: TermsEdition, public: bytes) -> tuple[bytes, ...]:
    return (community_id(public), wire.encode(replace(edition, signature=bytes(64))).head)
