"""What a volunteer does with each message: stage and message in, next stage and reply out.

Each stage is frozen and holds exactly what the rest of the session may still need; what a stage
does not carry on is gone. A function here either returns a reply or raises; it never half-acts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from nomoat.aggregation.errors import LocalProtocolError, RemoteProtocolError
from nomoat.aggregation.protocol import signing
from nomoat.aggregation.protocol.wire import COORDINATOR
from nomoat.aggregation.secagg import certificate, graph, keys, labels, masking, shares
from nomoat.aggregation.secagg.messages import (
    Certificate,
    CheckReport,
    KeysReport,
    MaskedReport,
    Member,
    RevealReport,
    SessionOffer,
    SessionRoster,
    SharesDelivery,
    ShareSet,
    SharesReport,
    SurvivorSet,
    SurvivorSignature,
    ToCoordinator,
)
from nomoat.aggregation.secagg.parameters import (
    Mark,
    Policy,
    Terms,
    check_offer,
    check_thresholds,
)
from nomoat.aggregation.secagg.shares import BadBox, HeldShares
from nomoat.aggregation.secagg.thresholds import Thresholds
from nomoat.aggregation.secagg.transcript import (
    BadSet,
    from_bitmap,
    offer_hash,
    session_hash,
)
from nomoat.aggregation.sums.fixed_point import Contribution, FixedPoint, Layout


@dataclass(frozen=True)
class Volunteer:
    """Who takes part, with what, on which terms. secrets: fresh ones, for this session alone."""

    identity: signing.SigningKey = field(repr=False)
    terms: Terms = field(repr=False)
    policy: Policy
    diary: Collection[Mark] = field(repr=False)
    contribution: Contribution = field(repr=False)
    secrets: keys.SessionSecrets = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.contribution.vector) != self.terms.manifest.size:
            raise LocalProtocolError(
                f"the update has {len(self.contribution.vector)} values, "
                f"its manifest {self.terms.manifest.size}"
            )


@dataclass(frozen=True)
class Keyed:
    """After R0's first half: the offer is accepted."""

    volunteer: Volunteer
    offer: SessionOffer
    layout: Layout
    offered: bytes  # the offer's hash
    sent: KeysReport


@dataclass(frozen=True)
class Session:
    """After R0: everything that all participants have in common, and this one's place in it."""

    transcript: bytes
    identity: signing.SigningKey = field(repr=False)
    offer: SessionOffer
    identities: tuple[bytes, ...]
    needed: Thresholds
    index: int
    neighbours: tuple[int, ...]

    def set_of(self, bitmap: bytes, section: str) -> frozenset[int]:
        """A bitmap as indices, or RemoteProtocolError."""
        try:
            return from_bitmap(bitmap, len(self.identities))
        except BadSet as problem:
            raise _lie(section, f"a set {problem}") from None

    def mark(self, kind: str) -> Mark:
        """A diary line about this session."""
        return _mark(kind, self.offer)

    def circle(self, members: frozenset[int]) -> tuple[int, ...]:
        """Those of the neighbours and itself that are in `members`, ascending."""
        return tuple(i for i in sorted({*self.neighbours, self.index}) if i in members)


@dataclass(frozen=True)
class Shared:
    """After R1's first half: own shares are dealt."""

    session: Session
    volunteer: Volunteer
    layout: Layout
    box_secrets: Mapping[int, bytes] = field(repr=False)
    pair_keys: Mapping[int, bytes] = field(repr=False)
    kept: bytes = field(repr=False)


@dataclass(frozen=True)
class Checked:
    """After R1: the neighbours' shares are held."""

    session: Session
    volunteer: Volunteer
    layout: Layout
    pair_keys: Mapping[int, bytes] = field(repr=False)
    held: Mapping[int, HeldShares] = field(repr=False)


@dataclass(frozen=True)
class Masked:
    """After R2: the vector is out; only others' shares are left to protect."""

    session: Session
    shared: bytes  # bitmap of U2
    members: frozenset[int]  # U2
    held: Mapping[int, HeldShares] = field(repr=False)


@dataclass(frozen=True)
class Signed:
    """After R3: U3 is signed, once."""

    masked: Masked
    statement: certificate.Statement
    survivors: frozenset[int]  # U3


@dataclass(frozen=True)
class Reply:
    """The next stage, what to send, and what to store before sending it."""

    stage: object
    outgoing: ToCoordinator
    persist: tuple[Mark, ...] = ()


def on_offer(volunteer: Volunteer, offer: SessionOffer) -> Reply:
    """R0: check the offer against terms, policy and diary; send two signed public keys (§11)."""
    layout = check_offer(offer, volunteer.terms, volunteer.policy, volunteer.diary)
    offered = offer_hash(offer)
    box = keys.public_of(volunteer.secrets.box_private)
    mask = keys.public_of(volunteer.secrets.mask_private)
    signature = volunteer.identity.sign(labels.SIGN_KEYS, offered, box, mask)
    report = KeysReport(box, mask, signature)
    stage = Keyed(volunteer, offer, layout, offered, report)
    return Reply(stage, report, (_mark("joined", offer),))


def on_roster(stage: Keyed, roster: SessionRoster) -> Reply:
    """R0 → R1: check every participant, then deal shares to the neighbours (§11.4–§12.3)."""
    volunteer = stage.volunteer
    needed = check_thresholds(stage.offer, roster, volunteer.policy)
    index = check_members(stage, roster)
    transcript = session_hash(stage.offered, roster)
    ring = graph.build(len(roster.members), needed.neighbours, transcript)
    session = Session(
        transcript,
        volunteer.identity,
        stage.offer,
        tuple(member.identity for member in roster.members),
        needed,
        index,
        ring.neighbours(index),
    )
    box_secrets, pair_keys = _agree_all(stage, session, roster)
    secrets = volunteer.secrets
    dealt = shares.deal(secrets, needed.shares, transcript, index, box_secrets)
    body = (dealt.seed_commitment, dealt.own_commitment, dealt.boxes)
    signature = volunteer.identity.sign(labels.SIGN_SHARES, transcript, *body)
    following = Shared(session, volunteer, stage.layout, box_secrets, pair_keys, dealt.kept)
    return Reply(following, SharesReport(*body, signature))


def check_members(stage: Keyed, roster: SessionRoster) -> int:
    """Own index, if the participants are sorted, known, distinct and signed for (§11.4)."""
    members, names = roster.members, stage.volunteer.terms.roster.names
    identities = [member.identity for member in members]
    if any(one >= other for one, other in pairwise(identities)):
        raise _lie("§11.4", "participants are not in order, or one is there twice")
    public_keys = [key for member in members for key in (member.box_key, member.mask_key)]
    if len(set(public_keys)) != len(public_keys):
        raise _lie("§11.4", "two participants have the same key")
    if stage.volunteer.identity.public not in identities:
        raise _lie("§11.4", "the list of participants leaves this volunteer out")
    index = identities.index(stage.volunteer.identity.public)
    sent = stage.sent
    if members[index] != Member(identities[index], sent.box_key, sent.mask_key, sent.signature):
        raise _lie("§11.4", "this volunteer's keys were exchanged")
    if unknown := [identity for identity in identities if identity not in names]:
        raise _lie("§11.4", f"{len(unknown)} participants are not of the community")
    known = len(stage.volunteer.terms.known & set(identities) - {identities[index]})
    if known < stage.volunteer.policy.known_peers:
        raise _lie("§11.4", f"only {known} participants are long known to this machine")
    for member in members:
        _check_member(member, stage.offered, names[member.identity])
    return index


def _check_member(member: Member, offered: bytes, name: str) -> None:
    signed = (offered, member.box_key, member.mask_key)
    try:
        signing.verify(member.identity, member.signature, labels.SIGN_KEYS, *signed)
        keys.check_public(member.box_key)
        keys.check_public(member.mask_key)
    except signing.BadSignature:
        # Another offer, or not its keys: either way the coordinator passed it on.
        raise _lie("§11.4", f"the keys of {name} are not signed for this session") from None
    except keys.BadKey as problem:
        raise RemoteProtocolError(name, "§11.4", f"its key {problem}") from None


def _agree_all(
    stage: Keyed, session: Session, roster: SessionRoster
) -> tuple[dict[int, bytes], dict[int, bytes]]:
    """Neighbour → X25519 secret of the box keys, and neighbour → key of the pairwise mask."""
    secrets = stage.volunteer.secrets
    box, mask = keys.agreement(secrets.box_private), keys.agreement(secrets.mask_private)
    boxes, masks = {}, {}
    for other in session.neighbours:
        member = roster.members[other]
        try:
            boxes[other] = box(member.box_key)
            agreed = mask(member.mask_key)
        except keys.BadKey as problem:
            name = stage.volunteer.terms.roster.names[member.identity]
            raise RemoteProtocolError(name, "§11.4", f"its key {problem}") from None
        ends = (session.index, other)
        masks[other] = masking.pair_mask_key(agreed, session.transcript, *ends)
    return boxes, masks


def on_delivery(stage: Shared, delivery: SharesDelivery) -> Reply:
    """R1: open the neighbours' boxes and name those whose box is no good (§12.4, §12.5)."""
    session = stage.session
    sources = [addressed.source for addressed in delivery.boxes]
    if sources != sorted(set(sources)) or not set(sources) <= set(session.neighbours):
        raise _lie("§12.4", "boxes are out of order, repeated, or not from neighbours")
    held = {session.index: HeldShares(stage.kept, b"")}
    complaints = []
    for addressed in delivery.boxes:
        source = addressed.source
        ends = (source, session.index)
        agreed = stage.box_secrets[source]
        try:
            held[source] = shares.open_box(agreed, session.transcript, ends, addressed.box)
        except BadBox:
            complaints.append(source)
    accused = labels.index_bytes(*complaints)
    signature = session.identity.sign(labels.SIGN_CHECK, session.transcript, accused)
    following = Checked(session, stage.volunteer, stage.layout, stage.pair_keys, held)
    return Reply(following, CheckReport(tuple(complaints), signature))


def on_share_set(stage: Checked, share_set: ShareSet) -> Reply:
    """R2: mask the vector against everyone in U2, then forget the own secrets (§13)."""
    session, volunteer = stage.session, stage.volunteer
    members = session.set_of(share_set.members, "§13.1")
    _check_share_set(stage, members)
    own_key = masking.self_mask_key(volunteer.secrets.self_seed, session.transcript, session.index)
    pairs = {i: key for i, key in stage.pair_keys.items() if i in members}
    masked = masking.masked_vector(
        volunteer.contribution,
        stage.layout,
        FixedPoint(session.offer.value_bits, len(session.identities)),
        volunteer.secrets.rounding_key,
        masking.client_masks(own_key, session.index, pairs),
    )
    digest = hashlib.sha256(masked).digest()
    signed = (session.transcript, share_set.members, digest)
    signature = session.identity.sign(labels.SIGN_MASKED, *signed)
    volunteer.secrets.erase()
    following = Masked(session, share_set.members, members, stage.held)
    return Reply(following, MaskedReport(signature, masked))


def _check_share_set(stage: Checked, members: frozenset[int]) -> None:
    session = stage.session
    if session.index not in members:
        raise _lie("§13.1", "U2 leaves this volunteer out")
    if len(members) < session.needed.survivors:
        raise _lie("§13.1", f"{len(members)} of {session.needed.survivors} needed have shared")
    circle = session.circle(members)
    if not set(circle) <= stage.held.keys():
        # Complained about, or its box was withheld: its secrets could not be recovered.
        raise _lie("§13.1", "U2 holds a neighbour whose shares this volunteer does not have")
    if len(circle) < session.needed.shares:
        raise _lie("§13.1", f"{len(circle)} neighbours are in U2, {session.needed.shares} needed")


def on_survivors(stage: Masked, proposal: SurvivorSet) -> Reply:
    """R3: sign the one survivor set of this session (§14)."""
    session = stage.session
    survivors = session.set_of(proposal.members, "§14.1")
    if session.index not in survivors:
        raise _lie("§14.2", "U3 leaves this volunteer out")
    if not survivors <= stage.members:
        raise _lie("§14.2", "U3 holds someone who is not in U2")
    if len(survivors) < session.needed.survivors:
        raise _lie("§14.2", f"{len(survivors)} survive of {session.needed.survivors} needed")
    alive = len(session.circle(survivors)) - 1
    if alive < session.needed.alive:
        # A coordinator that chooses the dropouts would cut this volunteer off from all but a few.
        raise _lie("§14.2", f"{alive} neighbours survive of {session.needed.alive} needed")
    statement = certificate.Statement(session.transcript, stage.shared, proposal.members)
    signature = certificate.sign(session.identity, statement)
    following = Signed(stage, statement, survivors)
    return Reply(following, SurvivorSignature(signature), (session.mark("signed"),))


def on_certificate(stage: Signed, certified: Certificate) -> Reply:
    """R4: with a quorum's signatures on that very set, one share per neighbour (§15)."""
    session, held = stage.masked.session, stage.masked.held
    needed = session.needed.quorum
    try:
        certificate.verify(certified, stage.statement, session.identities, needed)
    except certificate.BadCertificate as problem:
        raise _lie("§15.1", f"the certificate {problem}") from None
    # Which of the two is revealed follows from U3 alone: nobody can ask for the other (§15.2).
    revealed = b"".join(
        held[i].seed if i in stage.survivors else held[i].key
        for i in session.circle(stage.masked.members)
    )
    signed = (session.transcript, stage.statement.survivors, revealed)
    signature = session.identity.sign(labels.SIGN_REVEAL, *signed)
    return Reply(None, RevealReport(revealed, signature), (session.mark("revealed"),))


def _mark(kind: str, offer: SessionOffer) -> Mark:
    return Mark(kind, offer.session, offer.round, offer.exchange)  # type: ignore[arg-type]


def _lie(section: str, reason: str) -> RemoteProtocolError:
    return RemoteProtocolError(COORDINATOR, section, reason)
