"""The messages of a secure-aggregation session, in the order of sending (docs/protocol.md §11–§15).

Volunteers are indices into the session's roster, which is sorted by identity; sets of them are
bitmaps, which cannot list anybody twice. Every signature covers the session's transcript hash.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, TypeAlias

from nomoat.aggregation.protocol.messages import MAX_RANK, Digest, Round
from nomoat.aggregation.protocol.signing import SIGNATURE_BYTES
from nomoat.aggregation.protocol.wire import Body, Limit, message
from nomoat.aggregation.secagg.labels import COMMITMENT_BYTES
from nomoat.aggregation.secagg.masks.shamir import SHARE_BYTES
from nomoat.aggregation.sums.fixed_point import MAX_VALUE_BITS, MIN_VALUE_BITS

MAX_PARTICIPANTS = 10_000
MAX_NEIGHBOURS = 1024
AEAD_TAG_BYTES = 16
SEALED_BYTES = 2 * SHARE_BYTES + AEAD_TAG_BYTES  # both shares, encrypted
SKETCH_BYTES = 256  # 64 words
BOX_BYTES = SEALED_BYTES + 2 * COMMITMENT_BYTES  # and what binds the dealer to each

Key: TypeAlias = Annotated[bytes, Limit(32, 32)]
Signature: TypeAlias = Annotated[bytes, Limit(SIGNATURE_BYTES, SIGNATURE_BYTES)]
Commitment: TypeAlias = Annotated[bytes, Limit(COMMITMENT_BYTES, COMMITMENT_BYTES)]
Index: TypeAlias = Annotated[int, Limit(0, MAX_PARTICIPANTS - 1)]
Indices: TypeAlias = Annotated[tuple[Index, ...], Limit(0, MAX_NEIGHBOURS)]
Bitmap: TypeAlias = Annotated[bytes, Limit(1, MAX_PARTICIPANTS // 8)]
Modules: TypeAlias = Annotated[bytes, Limit(1, MAX_RANK // 8)]
Clip: TypeAlias = Annotated[float, Limit(1e-12, 1e6)]
Permille: TypeAlias = Annotated[int, Limit(0, 999)]
Participants: TypeAlias = Annotated[int, Limit(2, MAX_PARTICIPANTS)]


@message("sa.offer")
@dataclass(frozen=True, slots=True)
class SessionOffer:
    """Coordinator → volunteer, R0: everything the session will be about (§11.1).

    clips: one bound per tensor, in the manifest's order. clip_l2: the bound on an update's L2 norm
    (§16.6), 0 for none. audit_kind: how updates are sketched, 0 for no audit; audit_commit: what
    the coordinator committed to for it, zeros without one (§20). work: `work_hash` of the task that
    everybody trained for. standing: digest of the RoundEnd it was trained after (§6.4). n_each: how
    many must have trained a module for it to be summed (§11.7). noise_multiplier: z, the noise in
    the sum over clip_l2, 0 for none (§21).
    """

    session: Digest
    round: Round
    exchange: Annotated[int, Limit(1, 4)]
    base_hash: Digest
    adapter_hash: Digest
    manifest_hash: Digest
    roster_root: Digest
    clips: Annotated[tuple[Clip, ...], Limit(1, 65_536)]
    value_bits: Annotated[int, Limit(MIN_VALUE_BITS, MAX_VALUE_BITS)]
    n_min: Participants
    n_max: Participants
    corrupt_permille: Permille
    dropout_permille: Permille
    weak: bool
    clip_l2: Annotated[float, Limit(0, 1e6)] = 0.0
    audit_kind: Annotated[int, Limit(0, 255)] = 0
    audit_commit: Digest = bytes(32)
    work: Digest = bytes(32)
    standing: Digest = bytes(32)
    n_each: Participants = 2
    noise_multiplier: Annotated[float, Limit(0, 1e6)] = 0.0


@message("sa.keys")
@dataclass(frozen=True, slots=True)
class KeysReport:
    """Volunteer → coordinator, R0: two fresh public keys, signed (§11.3).

    modules: bitmap of those of the adapter that it has trained.
    """

    box_key: Key
    mask_key: Key
    signature: Signature
    modules: Modules = b"\x01"


@message("sa.member")
@dataclass(frozen=True, slots=True)
class Participant:
    """One volunteer of a session: its identity and its KeysReport."""

    identity: Key
    box_key: Key
    mask_key: Key
    signature: Signature
    modules: Modules = b"\x01"


@message("sa.roster")
@dataclass(frozen=True, slots=True)
class SessionRoster:
    """Coordinator → volunteer, R0: who takes part, ascending by identity, and k, t, q (§11.4)."""

    neighbours: Annotated[int, Limit(1, MAX_PARTICIPANTS)]
    shares: Annotated[int, Limit(1, MAX_PARTICIPANTS)]
    quorum: Annotated[int, Limit(1, MAX_PARTICIPANTS)]
    members: Annotated[tuple[Participant, ...], Limit(2, MAX_PARTICIPANTS)]


@message("sa.shares")
@dataclass(frozen=True, slots=True)
class SharesReport:
    """Volunteer → coordinator, R1: a box per neighbour, ascending by index (§12.3)."""

    seed_commitment: Commitment
    own_commitment: Commitment  # to the seed share that the dealer keeps
    boxes: Annotated[bytes, Limit(BOX_BYTES, MAX_NEIGHBOURS * BOX_BYTES)]
    signature: Signature


@message("sa.box")
@dataclass(frozen=True, slots=True)
class AddressedBox:
    """One box and who made it."""

    source: Index
    box: Annotated[bytes, Limit(BOX_BYTES, BOX_BYTES)]


@message("sa.delivery")
@dataclass(frozen=True, slots=True)
class SharesDelivery:
    """Coordinator → volunteer, R1: the boxes made for this volunteer (§12.4)."""

    boxes: Annotated[tuple[AddressedBox, ...], Limit(0, MAX_NEIGHBOURS)]


@message("sa.check")
@dataclass(frozen=True, slots=True)
class CheckReport:
    """Volunteer → coordinator, R1: whose boxes were no good, usually nobody's; signed (§12.5)."""

    complaints: Indices
    signature: Signature


@message("sa.share_set")
@dataclass(frozen=True, slots=True)
class ShareSet:
    """Coordinator → volunteer, R2: U2, who shared with everybody (§13.1)."""

    members: Bitmap


@message("sa.masked")
@dataclass(frozen=True, slots=True)
class MaskedReport:
    """Volunteer → coordinator, R2: the masked, packed vector, signed with U2 (§13.3)."""

    signature: Signature
    masked: Annotated[bytes, Body()]


@message("sa.audit")
@dataclass(frozen=True, slots=True)
class AuditOpening:
    """Coordinator → volunteer, between R2 and R3: the seed it committed to (§20.2)."""

    seed: Digest


@message("sa.sketch")
@dataclass(frozen=True, slots=True)
class SketchReport:
    """Volunteer → coordinator: sketches of its self mask and of each neighbour's pair mask (§20.4).

    pairs: of the neighbours in U2, ascending by index.
    """

    own: Annotated[bytes, Limit(SKETCH_BYTES, SKETCH_BYTES)]
    pairs: Annotated[bytes, Limit(SKETCH_BYTES, MAX_NEIGHBOURS * SKETCH_BYTES)]
    signature: Signature


@message("sa.survivors")
@dataclass(frozen=True, slots=True)
class SurvivorSet:
    """Coordinator → volunteer, R3: U3, whose masked vectors are in the sum (§14.1)."""

    members: Bitmap


@message("sa.signed")
@dataclass(frozen=True, slots=True)
class SurvivorSignature:
    """Volunteer → coordinator, R3: this volunteer's one signature on U2 and U3 (§14.3)."""

    signature: Signature


@message("sa.certificate")
@dataclass(frozen=True, slots=True)
class Certificate:
    """Coordinator → volunteer, R4: who signed, and the signatures, ascending by index (§15.1)."""

    signers: Bitmap
    signatures: Annotated[bytes, Limit(0, MAX_PARTICIPANTS * SIGNATURE_BYTES)]


@message("sa.reveal")
@dataclass(frozen=True, slots=True)
class RevealReport:
    """Volunteer → coordinator, R4: one share per neighbour and its own, ascending (§15.3)."""

    shares: Annotated[bytes, Limit(SHARE_BYTES, (MAX_NEIGHBOURS + 1) * SHARE_BYTES)]
    signature: Signature


@message("sa.abandoned")
@dataclass(frozen=True, slots=True)
class Abandoned:
    """Coordinator → volunteer, any time: the session is over; keep the update (§10.6)."""

    reason: Annotated[str, Limit(1, 80)]


ToVolunteer: TypeAlias = (
    SessionOffer
    | SessionRoster
    | SharesDelivery
    | ShareSet
    | AuditOpening
    | SurvivorSet
    | Certificate
    | Abandoned
)
ToCoordinator: TypeAlias = (
    KeysReport
    | SharesReport
    | CheckReport
    | MaskedReport
    | SketchReport
    | SurvivorSignature
    | RevealReport
)
TO_VOLUNTEER: tuple[type[ToVolunteer], ...] = (
    SessionOffer,
    SessionRoster,
    SharesDelivery,
    ShareSet,
    AuditOpening,
    SurvivorSet,
    Certificate,
    Abandoned,
)
TO_COORDINATOR: tuple[type[ToCoordinator], ...] = (
    KeysReport,
    SharesReport,
    CheckReport,
    MaskedReport,
    SketchReport,
    SurvivorSignature,
    RevealReport,
)
