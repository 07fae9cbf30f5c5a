"""Evidence of an audited session: what one volunteer signed, from which anybody finds the same.

A coordinator's word that an update was too large is worth nothing. So with the name goes all that
the finding follows from: offer and participants (hence T), the seed that the offer commits to, the
masked vector and the sketches, both signed by the accused. Nothing of it unmasks an update: the
masked vector of whoever left a sum keeps its self mask, that of whoever lied about its self mask
keeps its pair masks, and of either no more is shown than its sketch (docs/protocol.md §20.9).

    found = finding(evidence)        # RemoteProtocolError: it proves nothing
    found.accused, found.says        # identity, and what it did
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, TypeAlias

import numpy as np

from nomoat.aggregation.errors import LocalProtocolError, RemoteProtocolError
from nomoat.aggregation.protocol import signing, wire
from nomoat.aggregation.protocol.adapter import Manifest, TensorSpec
from nomoat.aggregation.secagg import graph, labels
from nomoat.aggregation.secagg.audit.judgement import Ring
from nomoat.aggregation.secagg.audit.sketch import Signs, sketch_keystreams, sketch_packed
from nomoat.aggregation.secagg.audit.terms import KIND, can_audit, commit, norm_test, point_of
from nomoat.aggregation.secagg.masks import keys
from nomoat.aggregation.secagg.masks.masking import MaskedSum, pair_mask_key, self_mask_key
from nomoat.aggregation.secagg.masks.shares import commit_seed
from nomoat.aggregation.secagg.messages import (
    SKETCH_BYTES,
    Bitmap,
    Index,
    Key,
    MaskedReport,
    Participant,
    SessionOffer,
    SessionRoster,
    SharesReport,
    SketchReport,
)
from nomoat.aggregation.secagg.parameters import agreed_thresholds
from nomoat.aggregation.secagg.transcript import (
    BadSet,
    from_bitmap,
    manifest_hash,
    offer_hash,
    session_hash,
)

SECTION = "§20.9"
MOST_VALUES = 1 << 30


@wire.message("sa.evidence.tensor")
@dataclass(frozen=True, slots=True)
class SummedTensor:
    """A tensor of the vectors that were summed, as in the manifest."""

    name: Annotated[str, wire.Limit(1, 512)]
    shape: Annotated[tuple[Annotated[int, wire.Limit(0, 2**31)], ...], wire.Limit(0, 8)]


@wire.message("sa.evidence.session")
@dataclass(frozen=True, slots=True)
class SessionPart:
    """The session that evidence is of. shared: U2; index: of the accused."""

    offer: SessionOffer
    tensors: Annotated[tuple[SummedTensor, ...], wire.Limit(1, 65_536)]
    roster: SessionRoster
    seed: Key
    shared: Bitmap
    index: Index
    report: SketchReport  # of the accused

    @property
    def manifest(self) -> Manifest:
        """The tensors that were summed."""
        return Manifest(tuple(TensorSpec(each.name, each.shape) for each in self.tensors))


@wire.message("sa.evidence.size")
@dataclass(frozen=True, slots=True)
class SizeEvidence:
    """Evidence of too large an update: its masked vector."""

    session: SessionPart
    vector: MaskedReport


@wire.message("sa.evidence.sketch")
@dataclass(frozen=True, slots=True)
class SketchEvidence:
    """Evidence of a sketch that is not of its mask. owner: whose revealed secret shows that.

    secret: of the accused itself the self mask's seed, which `dealt` commits to; else, or where
    `dealt` is None, the private mask key of `owner`: the mask is then that of owner and accused, or
    where these are one, of the accused and `other`.
    """

    session: SessionPart
    owner: Index
    other: Index
    secret: Key
    dealt: SharesReport | None


Evidence: TypeAlias = SizeEvidence | SketchEvidence


@dataclass(frozen=True, slots=True)
class ProvenLie:
    """The result of reading evidence: whom it is about, in which round, and what it shows."""

    accused: bytes
    round: int
    says: str


@dataclass(frozen=True)
class _Read:
    """A session part whose signatures hold."""

    part: SessionPart
    transcript: bytes
    circle: tuple[int, ...]  # the accused's neighbours in U2

    @property
    def member(self) -> Participant:
        return self.part.roster.members[self.part.index]

    @property
    def pairs(self) -> Mapping[int, Ring]:
        words = np.frombuffer(self.part.report.pairs, "<u4").reshape(len(self.circle), -1)
        return dict(zip(self.circle, words, strict=True))

    @property
    def own(self) -> Ring:
        found: Ring = np.frombuffer(self.part.report.own, "<u4")
        return found

    @property
    def signs(self) -> Signs:
        return Signs(self.part.seed, self.transcript)

    def check(self, signature: bytes, label: str, *parts: bytes) -> None:
        _check_signed(self.member.identity, signature, label, self.transcript, *parts)


def to_bytes(evidence: Evidence) -> bytes:
    """Evidence as the bytes that are kept, and whose SHA-256 names it."""
    packet = wire.encode(evidence)
    return len(packet.head).to_bytes(4, "big") + packet.head + packet.body


def digest_of(data: bytes) -> bytes:
    """The name of evidence, 32 bytes."""
    return hashlib.sha256(data).digest()


def from_bytes(data: bytes, peer: str) -> Evidence:
    """Inverse of to_bytes; RemoteProtocolError naming `peer` if it is none."""
    size = int.from_bytes(data[:4], "big")
    packet = wire.Packet(data[4 : 4 + size], data[4 + size :])
    if wire.peek_kind(packet, peer) == wire.kind_of(SizeEvidence):
        return wire.decode(packet, SizeEvidence, peer)
    return wire.decode(packet, SketchEvidence, peer)


def finding(evidence: Evidence) -> ProvenLie:
    """Recompute what evidence shows; RemoteProtocolError if it does not show it."""
    read = _read(evidence.session)
    if isinstance(evidence, SizeEvidence):
        says = _too_large(read, evidence)
    else:
        says = _false(read, evidence)
    return ProvenLie(read.member.identity, evidence.session.offer.round, says)


def _read(part: SessionPart) -> _Read:
    offer, members = part.offer, part.roster.members
    offered = offer_hash(offer)
    if offer.audit_kind not in {0, KIND}:
        raise _nothing(f"its sketches are of kind {offer.audit_kind}; this release makes {KIND}")
    if not offer.audit_kind or not can_audit(offer) or commit(part.seed) != offer.audit_commit:
        raise _nothing("its session was not audited with this seed")
    manifest = part.manifest
    if manifest_hash(manifest) != offer.manifest_hash or not 0 < manifest.size <= MOST_VALUES:
        raise _nothing("its vectors are not those of the session")
    if part.index >= len(members):
        raise _nothing("it accuses nobody")
    accused, transcript = members[part.index], session_hash(offered, part.roster)
    both = (accused.box_key, accused.mask_key)
    _check_signed(
        accused.identity, accused.signature, labels.SIGN_KEYS, offered, *both, accused.modules
    )
    try:
        needed = agreed_thresholds(offer, len(members))
        ring = graph.build(len(members), needed.neighbours, transcript)
        shared = from_bitmap(part.shared, len(members))
    except (LocalProtocolError, BadSet) as problem:
        raise _nothing(str(problem)) from None
    circle = tuple(i for i in sorted(ring.neighbours(part.index)) if i in shared)
    read = _Read(part, transcript, circle)
    if len(part.report.pairs) != SKETCH_BYTES * len(circle):
        raise _nothing("it does not hold one sketch per neighbour")
    report = part.report
    read.check(report.signature, labels.SIGN_SKETCH, part.shared, report.own, report.pairs)
    return read


def _too_large(read: _Read, evidence: SizeEvidence) -> str:
    part, masked = read.part, evidence.vector.masked
    participants = len(part.roster.members)
    point = point_of(part.offer, participants)
    try:
        MaskedSum(part.manifest.size, point).check(masked)
    except LocalProtocolError as problem:
        raise _nothing(str(problem)) from None
    digest = hashlib.sha256(masked).digest()
    read.check(evidence.vector.signature, labels.SIGN_MASKED, part.shared, digest)
    left = sketch_packed(read.signs, masked, part.manifest.size, point.wire_bits) - read.own
    for other, sketch in read.pairs.items():
        left = left - sketch if other > part.index else left + sketch
    test = norm_test(part.offer, participants, part.manifest.size)
    if not test.too_large(left):
        raise _nothing("the update is not too large")
    return f"its update is {test.size(left):.1f} times the bound"


def _false(read: _Read, evidence: SketchEvidence) -> str:
    claim, key = _mask(read, evidence)
    true = sketch_keystreams(read.signs, {0: key}, read.part.manifest.size)[0]
    if np.array_equal(claim, true):
        raise _nothing("the sketch is that of the mask")
    return "its sketches are not those of its masks"


def _mask(read: _Read, evidence: SketchEvidence) -> tuple[Ring, bytes]:
    """The sketch that was sent of a mask, and the mask's key."""
    part, secret, dealt = read.part, evidence.secret, evidence.dealt
    if dealt is not None:
        body = (dealt.seed_commitment, dealt.own_commitment, dealt.boxes)
        read.check(dealt.signature, labels.SIGN_SHARES, *body)
        if commit_seed(read.transcript, part.index, secret) != dealt.seed_commitment:
            raise _nothing("the seed is not the one that the accused committed to")
        return read.own, self_mask_key(secret, read.transcript, part.index)
    beyond = evidence.other if evidence.owner == part.index else evidence.owner
    if beyond not in read.circle:
        raise _nothing("the mask is not one of the accused's")
    members = part.roster.members
    if keys.public_of(secret) != members[evidence.owner].mask_key:
        raise _nothing("the key is not its owner's")
    facing = beyond if evidence.owner == part.index else part.index
    try:
        agreed = keys.agreement(secret)(members[facing].mask_key)
    except keys.BadKey as problem:
        raise _nothing(str(problem)) from None
    return read.pairs[beyond], pair_mask_key(agreed, read.transcript, part.index, beyond)


def _check_signed(identity: bytes, signature: bytes, label: str, *parts: bytes) -> None:
    try:
        signing.verify(identity, signature, label, *parts)
    except signing.BadSignature:
        raise _nothing("the accused has not signed it") from None


def _nothing(why: str) -> RemoteProtocolError:
    return RemoteProtocolError("evidence", SECTION, why)
