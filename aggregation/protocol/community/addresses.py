"""Addresses a community is reached at, now or soon, under its signature (§5.8).

An invitation names one; members learn of others while they can still be told.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from nomoat.aggregation.errors import RemoteProtocolError
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.enrolment import Signature, UnixTime, community_id
from nomoat.aggregation.protocol.signing import BadSignature, SigningKey, verify
from nomoat.aggregation.protocol.wire import COORDINATOR

SECTION = "§5.8"
LABEL = "community.addresses"
MOST = 4

Place = Annotated[str, wire.Limit(1, 260)]


@wire.message("community.addresses")
@dataclass(frozen=True, slots=True)
class AddressStatement:
    """host:port of a community, the one it prefers first. at: when they last changed."""

    at: UnixTime
    places: Annotated[tuple[Place, ...], wire.Limit(1, MOST)]
    signature: Signature


def sign(at: int, places: tuple[str, ...], key: SigningKey) -> AddressStatement:
    """State a community's addresses under its signature."""
    unsigned = AddressStatement(at, places, bytes(64))
    return replace(unsigned, signature=key.sign(LABEL, *_parts(unsigned, key.public)))


def check(statement: AddressStatement, public: bytes) -> AddressStatement:
    """Return `statement` if the community with this key signed it; else RemoteProtocolError."""
    try:
        verify(public, statement.signature, LABEL, *_parts(statement, public))
    except BadSignature:
        reason = "its addresses are not signed by the community"
        raise RemoteProtocolError(COORDINATOR, SECTION, reason) from None
    return statement


def _parts(statement: AddressStatement, public: bytes) -> tuple[bytes, ...]:
    return (community_id(public), wire.encode(replace(statement, signature=bytes(64))).head)
