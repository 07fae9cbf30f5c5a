"""Enrolment: what a volunteer presents, what it is told, and the double binding of its keys.

A volunteer has two keys: its Ed25519 identity, ours, and the P-384 node key Flower's transport
authenticates. Each signs the other together with name and community, so that neither can be
enrolled with a key its owner never agreed to (docs/protocol.md §5).
"""

from __future__ import annotations

import functools
import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

from nomoat.aggregation.errors import RemoteProtocolError
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.signing import (
    PUBLIC_KEY_BYTES,
    SIGNATURE_BYTES,
    BadSignature,
    SigningKey,
    signed_bytes,
    verify,
)

SECTION = "§5"
BINDING = "enrol.binding"
REPLY = "enrol.reply"
INFO = "community.info"

PublicKey = Annotated[bytes, wire.Limit(PUBLIC_KEY_BYTES, PUBLIC_KEY_BYTES)]
Signature = Annotated[bytes, wire.Limit(SIGNATURE_BYTES, SIGNATURE_BYTES)]
NodeKey = Annotated[bytes, wire.Limit(100, 160)]  # DER SubjectPublicKeyInfo of P-384: 120 bytes
NodeSignature = Annotated[bytes, wire.Limit(8, 120)]  # DER ECDSA over P-384: at most 104 bytes
Handle = Annotated[str, wire.Limit(1, 40)]
Digest = Annotated[bytes, wire.Limit(32, 32)]
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,38}[a-z0-9]|[a-z0-9]")  # safe in files, logs, tables
NAME_RULE = "1 to 40 of a-z 0-9 . _ -, starting and ending with a-z 0-9"
UnixTime = Annotated[int, wire.Limit(0, 2**40)]


class Standing(StrEnum):
    """A volunteer's standing with its community."""

    PENDING = "pending"
    APPROVED = "approved"
    HELD = "held"
    BANNED = "banned"
    LEFT = "left"


@dataclass(frozen=True, slots=True)
class Binding:
    """A name, both its keys, and each key's signature over the other."""

    name: Handle
    identity: PublicKey
    node_key: NodeKey
    identity_signature: Signature
    node_signature: NodeSignature


@wire.message("enrol")
@dataclass(frozen=True, slots=True)
class Enrol:
    """Volunteer → coordinator: let me in with this invitation (or tell me where I stand)."""

    invitation: Annotated[bytes, wire.Limit(0, 2048)]
    binding: Binding


@wire.message("enrol.answer")
@dataclass(frozen=True, slots=True)
class Enrolled:
    """Coordinator → volunteer: your standing. `request` is the SHA-256 of what is answered."""

    request: Digest
    standing: Annotated[str, wire.Limit(1, 20)]
    reason: Annotated[str, wire.Limit(0, 200)]
    signature: Signature


@wire.message("community")
@dataclass(frozen=True, slots=True)
class CommunityInfo:
    """A community's account of itself, for whoever may join; signed with its key.

    `ca` is its certificate authority (PEM), which every later connection is checked against.
    Sizes are in values (float32); `protocol_low` to `protocol_high` is what it speaks.
    """

    name: Annotated[str, wire.Limit(1, 80)]
    public: PublicKey
    about: Annotated[str, wire.Limit(0, 2000)]
    base_model: Annotated[str, wire.Limit(1, 200)]
    base_license: Annotated[str, wire.Limit(0, 80)]
    base_hash: Digest
    base_bytes: Annotated[int, wire.Limit(0, 2**50)]
    adapter_values: Annotated[int, wire.Limit(1, 2**40)]
    method: Annotated[str, wire.Limit(1, 40)]
    local_steps: Annotated[int, wire.Limit(1, 100_000)]
    batch_size: Annotated[int, wire.Limit(1, 4096)]
    seq_len: Annotated[int, wire.Limit(8, 131_072)]
    secure: bool
    min_participants: Annotated[int, wire.Limit(2, 10_000)]
    allow_weak: bool
    admission: Annotated[str, wire.Limit(1, 20)]
    protocol_low: Annotated[int, wire.Limit(1, 1000)]
    protocol_high: Annotated[int, wire.Limit(1, 1000)]
    ca: Annotated[bytes, wire.Limit(1, 8192)]
    now: UnixTime
    signature: Signature


def community_id(public: bytes) -> bytes:
    """A community's name on the wire: SHA-256 of its public key under a label, 32 bytes."""
    return hashlib.sha256(b"nomoat community v1\0" + public).digest()


def fingerprint(public: bytes) -> str:
    """A community id for human eyes: 8 groups of 4 hex digits (128 bits)."""
    digits = community_id(public).hex()[:32]
    return " ".join(digits[at : at + 4] for at in range(0, 32, 4))


def bind(
    name: str, identity: SigningKey, node_key: ec.EllipticCurvePrivateKey, public: bytes
) -> Binding:
    """Bind both keys to `name` in the community with key `public`."""
    der = node_public_der(node_key.public_key())
    parts = _bound(name, identity.public, der, public)
    node_signature = node_key.sign(signed_bytes(BINDING, *parts), ec.ECDSA(hashes.SHA384()))
    return Binding(name, identity.public, der, identity.sign(BINDING, *parts), node_signature)


@functools.lru_cache(maxsize=1 << 10)  # what holds is held to it again when its entry is written
def check_binding(binding: Binding, public: bytes) -> None:
    """Raise RemoteProtocolError unless both keys signed this binding for this community."""
    parts = _bound(binding.name, binding.identity, binding.node_key, public)
    try:
        verify(binding.identity, binding.identity_signature, BINDING, *parts)
        key = load_der_public_key(binding.node_key)
        if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp384r1":
            raise RemoteProtocolError(binding.name, SECTION, "the node key is not on P-384")
        if node_public_der(key) != binding.node_key:  # one key, one spelling
            raise RemoteProtocolError(binding.name, SECTION, "the node key is spelled oddly")
        message = signed_bytes(BINDING, *parts)
        key.verify(binding.node_signature, message, ec.ECDSA(hashes.SHA384()))
    except (BadSignature, InvalidSignature, ValueError, UnsupportedAlgorithm):
        reason = "its two keys do not vouch for each other"
        raise RemoteProtocolError(binding.name, SECTION, reason) from None


def node_public_der(key: ec.EllipticCurvePublicKey) -> bytes:
    """A node key's public half, DER SubjectPublicKeyInfo."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def answer(request: wire.Packet, standing: Standing, reason: str, key: SigningKey) -> Enrolled:
    """The community's signed answer to an enrolment."""
    digest = hashlib.sha256(request.head).digest()
    signature = key.sign(REPLY, digest, standing.value.encode(), reason.encode())
    return Enrolled(digest, standing.value, reason, signature)


def check_answer(reply: Enrolled, request: wire.Packet, public: bytes) -> Standing:
    """The standing in a reply, if the community signed it for this very request."""
    digest = hashlib.sha256(request.head).digest()
    parts = (digest, reply.standing.encode(), reply.reason.encode())
    try:
        verify(public, reply.signature, REPLY, *parts)
        return Standing(reply.standing)
    except (BadSignature, ValueError):
        reason = "the answer to the enrolment is not signed by the community"
        raise RemoteProtocolError("coordinator", SECTION, reason) from None


def info_bytes(info: CommunityInfo) -> bytes:
    """Encode what the signature of a CommunityInfo covers: all of it but the signature."""
    blank = {name: getattr(info, name) for name in info.__dataclass_fields__}
    return wire.encode(CommunityInfo(**{**blank, "signature": bytes(SIGNATURE_BYTES)})).head


def check_info(info: CommunityInfo, public: bytes) -> CommunityInfo:
    """Return `info` if the community with key `public` signed it; else RemoteProtocolError."""
    try:
        if info.public != public:
            raise BadSignature(INFO)
        verify(public, info.signature, INFO, info_bytes(info))
    except BadSignature:
        reason = "is not the community the invitation names"
        raise RemoteProtocolError("coordinator", SECTION, reason) from None
    return info


def _bound(name: str, identity: bytes, node_key: bytes, public: bytes) -> tuple[bytes, ...]:
    return (community_id(public), name.encode(), identity, node_key)


PROOF = "http.proof"
PROOF_HEADER = "x-nomoat-proof"
PROOF_WINDOW_S = 300


def prove(identity: SigningKey, public: bytes, target: str, now: int) -> str:
    """A header value that proves who asks for `target` (method, path and query) at `now`."""
    signature = identity.sign(PROOF, *_asked(public, target, now))
    return f"{identity.public.hex()}.{now}.{signature.hex()}"


def enrolling(request: bytes) -> str:
    """The target that whoever comes back proves to ask for: enrolment by this very request.

    A binding is public to all members; with this, nobody but its owner brings it back.
    """
    return f"POST /enroll {hashlib.sha256(request).hexdigest()}"


class ClocksDiffer(RemoteProtocolError):
    """A proof is good, but not of now: one of the two clocks is wrong. ahead_s: the asker's."""

    def __init__(self, identity: bytes, ahead_s: int) -> None:
        where = "ahead of" if ahead_s > 0 else "behind"
        super().__init__(
            identity.hex()[:16],
            SECTION,
            f"the asking machine's clock is {abs(ahead_s)} s {where} the coordinator's; set the "
            "wrong one (NTP)",
        )
        self.identity = identity
        self.ahead_s = ahead_s


def check_proof(proof: str, public: bytes, target: str, now: int) -> bytes:
    """The identity that asks for `target`; RemoteProtocolError if it is not proven or not fresh."""
    try:
        identity, asked_at, signature = proof.split(".")
        verify(bytes.fromhex(identity), bytes.fromhex(signature), PROOF,
               *_asked(public, target, int(asked_at)))  # fmt: skip
        fresh = abs(now - int(asked_at)) <= PROOF_WINDOW_S
    except (ValueError, BadSignature):
        raise RemoteProtocolError("somebody", SECTION, "does not prove who it is") from None
    if not fresh:
        raise ClocksDiffer(bytes.fromhex(identity), int(asked_at) - now)
    return bytes.fromhex(identity)


def _asked(public: bytes, target: str, now: int) -> tuple[bytes, ...]:
    return (community_id(public), target.encode(), str(now).encode())
