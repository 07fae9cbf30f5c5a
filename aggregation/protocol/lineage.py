"""Versions of the community adapter: signed records, each naming its parent by hash.

A volunteer that follows the chain from a version it knows needs no trust in whoever hands it the
file: the file's digest is in the record, the record is signed and names its parent
(docs/protocol.md §6). An abandoned round leaves no record; a rollback is a new record whose adapter
is an old one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from nomoat.aggregation.errors import LocalProtocolError, RemoteProtocolError
from nomoat.aggregation.privacy.accounting import epsilon
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.adapter import Adapter, as_bytes
from nomoat.aggregation.protocol.enrolment import Digest, Signature, UnixTime
from nomoat.aggregation.protocol.history.key_changes import CommunityKeys
from nomoat.aggregation.protocol.messages import AdapterShape
from nomoat.aggregation.protocol.signing import BadSignature, SigningKey, verify

SECTION = "§6"
LABEL = "adapter.version"
PAGE = 1_000
HEAD_LENGTH_BYTES = 4


@dataclass(frozen=True, slots=True)
class VersionNoise:
    """The noise in the sum that a version is made of, and the budget it was sized for (§21).

    noise_multiplier: z, over the bound on an update; `participations` such sums are (epsilon,
    delta)-private for each volunteer.
    """

    noise_multiplier: Annotated[float, wire.Limit(0, 1e6)]
    epsilon: Annotated[float, wire.Limit(0, 1e6)]
    delta: Annotated[float, wire.Limit(0, 1)]
    participations: Annotated[int, wire.Limit(1, 1_000_000)]

    @property
    def enough(self) -> bool:
        """True if this z comes to what is said of it."""
        found = epsilon(self.noise_multiplier, self.delta, self.participations)
        return 0 < self.delta < 1 and found <= self.epsilon * (1 + 1e-6)


@dataclass(frozen=True, slots=True)
class Version:
    """One version: what it is, what it grew from, how it measured.

    adapter: Adapter.digest. parent: digest of the parent *record*, the community id for the first.
    loss, parent_loss: held-out nats per token after and before, as volunteers measured them;
    evaluation: the same on the community's own evaluation split. None where nothing was measured.
    noise: None where there was none in its sum.
    """

    number: Annotated[int, wire.Limit(0, 1_000_000)]
    parent: Digest
    adapter: Digest
    base_hash: Digest
    round: Annotated[int, wire.Limit(0, 1_000_000)]
    method: Annotated[str, wire.Limit(1, 40)]
    contributors: Annotated[tuple[Annotated[str, wire.Limit(1, 40)], ...], wire.Limit(0, 100_000)]
    loss: float | None
    parent_loss: float | None
    evaluation: float | None
    note: Annotated[str, wire.Limit(0, 200)]
    at: UnixTime
    noise: Annotated[VersionNoise | None, wire.Later()] = None


@wire.message("adapter.version")
@dataclass(frozen=True, slots=True)
class SignedVersion:
    """A version under the community's signature."""

    version: Version
    signature: Signature

    @property
    def digest(self) -> bytes:
        """The record's name, which its children hold as parent; 32 bytes."""
        return hashlib.sha256(_bytes(self.version)).digest()


@wire.message("adapter.versions")
@dataclass(frozen=True, slots=True)
class Versions:
    """Records in order of their number."""

    records: Annotated[tuple[SignedVersion, ...], wire.Limit(0, PAGE)]


@wire.message("adapter.file")
@dataclass(frozen=True, slots=True)
class AdapterFile:
    """An adapter as a file: its shape and its float32 values, little-endian."""

    shape: AdapterShape
    values: Annotated[bytes, wire.Body()]


def sign(version: Version, key: SigningKey) -> SignedVersion:
    """Put a version under the community's signature."""
    return SignedVersion(version, key.sign(LABEL, _bytes(version)))


def check(record: SignedVersion, public: bytes, peer: str) -> Version:
    """The version in a record, if the community with key `public` signed it."""
    try:
        verify(public, record.signature, LABEL, _bytes(record.version))
    except BadSignature:
        reason = f"version {record.version.number} is not signed by the community"
        raise RemoteProtocolError(peer, SECTION, reason) from None
    return record.version


def check_chain(
    known: SignedVersion | None, records: Iterable[SignedVersion], keys: CommunityKeys
) -> SignedVersion | None:
    """The newest of `records` if they follow `known`, number by number and hash by hash.

    known: the newest record held so far, None for none. keys: the community's, whose id is the
    parent of the first. Raises RemoteProtocolError at the first that does not follow.
    """
    newest = known
    for record in records:
        version = check(record, keys.of_version(record.version.number), "coordinator")
        number = 0 if newest is None else newest.version.number + 1
        parent = keys.id if newest is None else newest.digest
        if (version.number, version.parent) != (number, parent):
            reason = f"version {version.number} does not follow version {number - 1}: rewritten"
            raise RemoteProtocolError("coordinator", SECTION, reason)
        keys.check_record(version.number, record.digest, "coordinator")
        newest = record
    return newest


def to_file(adapter: Adapter) -> bytes:
    """An adapter's bytes at rest and in transit: head length (4, big-endian) ‖ head ‖ values."""
    packet = wire.encode(AdapterFile(AdapterShape.of(adapter.spec), as_bytes(adapter.vector)))
    return len(packet.head).to_bytes(HEAD_LENGTH_BYTES, "big") + packet.head + packet.body


def from_file(data: bytes, digest: bytes, peer: str) -> Adapter:
    """The adapter in a file, if its digest is `digest`; else RemoteProtocolError naming `peer`."""
    length = int.from_bytes(data[:HEAD_LENGTH_BYTES], "big")
    head = data[HEAD_LENGTH_BYTES : HEAD_LENGTH_BYTES + length]
    packet = wire.Packet(head, data[HEAD_LENGTH_BYTES + length :])
    file = wire.decode(packet, AdapterFile, peer)
    try:
        adapter = file.shape.open(file.values)
    except LocalProtocolError as problem:
        raise RemoteProtocolError(peer, SECTION, str(problem)[:200]) from None
    if adapter.digest != digest:
        raise RemoteProtocolError(peer, SECTION, "the adapter is not the one its record names")
    return adapter


def _bytes(version: Version) -> bytes:
    return wire.encode(SignedVersion(version, bytes(64))).head
