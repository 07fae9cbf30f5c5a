"""A protocol packet under its sender's signature, good for one recipient, request and moment.

The transport cannot vouch for a payload: a node that knows a message's id may answer it in another
node's name, and anything stored may be sent again. So every packet travels with a seal: its
sender's Ed25519 signature over where it belongs (community, direction, volunteer, kind, the
request's nonce, base model) and over its head, which holds the length and SHA-256 of its body
(docs/protocol.md §3). A reply carries the nonce of the request it answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Annotated

from nomoat.aggregation.errors import LocalProtocolError, RemoteProtocolError
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.signing import (
    PUBLIC_KEY_BYTES,
    SIGNATURE_BYTES,
    BadSignature,
    SigningKey,
    verify,
)

SEAL_BYTES = 256  # of an encoded seal, at most
SECTION = "§3"
SEAL = "seal"
NONCE_BYTES = 16


class Direction(Enum):
    """The side that speaks; the value is the signature's domain label."""

    TO_VOLUNTEER = "envelope.to-volunteer"
    TO_COORDINATOR = "envelope.to-coordinator"


@dataclass(frozen=True, slots=True)
class Context:
    """The place a packet belongs to: both ends know all of it, so only the nonce is ever sent.

    community: the community's id, 32 bytes. volunteer: the volunteer's Ed25519 public key, 32
    bytes. kind: the Flower message type. nonce: the request's 16 random bytes, the reply's too.
    base_hash: content hash of the base model, 32 bytes.
    """

    community: bytes
    direction: Direction
    volunteer: bytes
    kind: str
    nonce: bytes
    base_hash: bytes

    def __post_init__(self) -> None:
        sizes = (len(self.community), len(self.volunteer), len(self.base_hash), len(self.nonce))
        if sizes != (32, PUBLIC_KEY_BYTES, 32, NONCE_BYTES):
            raise LocalProtocolError(f"envelope context has fields of {sizes} bytes")

    def parts(self) -> tuple[bytes, ...]:
        """Return what of the context a signature covers, besides the direction (its label)."""
        return (self.community, self.volunteer, self.kind.encode(), self.nonce, self.base_hash)


@wire.message("seal")
@dataclass(frozen=True, slots=True)
class Seal:
    """The companion of a packet: who signed it, for which request."""

    signer: Annotated[bytes, wire.Limit(PUBLIC_KEY_BYTES, PUBLIC_KEY_BYTES)]
    nonce: Annotated[bytes, wire.Limit(NONCE_BYTES, NONCE_BYTES)]
    signature: Annotated[bytes, wire.Limit(SIGNATURE_BYTES, SIGNATURE_BYTES)]


def seal(packet: wire.Packet, key: SigningKey, context: Context) -> dict[str, bytes]:
    """The packet's parts and its seal under `key`, ready to travel."""
    signature = key.sign(context.direction.value, *context.parts(), packet.head)
    companion = wire.encode(Seal(key.public, context.nonce, signature))
    return {**packet.parts(), SEAL: companion.head}


def nonce_of(parts: Mapping[str, bytes], peer: str) -> bytes:
    """The nonce a sealed message claims; worth nothing until open_sealed has returned."""
    return _seal_of(parts, peer).nonce


def open_sealed(
    parts: Mapping[str, bytes], public: bytes, context: Context, peer: str
) -> wire.Packet:
    """The packet in `parts`, if `public` sealed it for exactly this context.

    Raises RemoteProtocolError naming `peer` on a missing or foreign seal, another request's nonce,
    or a signature that does not cover these bytes in this context. The body is bound through its
    SHA-256 in the head: wire.decode checks it.
    """
    found = _seal_of(parts, peer)
    if found.signer != public:
        raise RemoteProtocolError(peer, SECTION, "is sealed by somebody else's key")
    if found.nonce != context.nonce:
        raise RemoteProtocolError(peer, SECTION, "answers another request (a replay?)")
    packet = wire.Packet.from_parts({k: v for k, v in parts.items() if k != SEAL}, peer)
    try:
        verify(public, found.signature, context.direction.value, *context.parts(), packet.head)
    except BadSignature:
        raise RemoteProtocolError(peer, SECTION, "the seal does not fit the message") from None
    return packet


def _seal_of(parts: Mapping[str, bytes], peer: str) -> Seal:
    if SEAL not in parts:
        raise RemoteProtocolError(peer, SECTION, "the message is not sealed")
    if len(parts[SEAL]) > SEAL_BYTES:  # read before any signature is checked
        raise RemoteProtocolError(peer, SECTION, "the seal is larger than a seal")
    return wire.decode(wire.Packet(parts[SEAL]), Seal, peer)
