"""A volunteer in R0 and R1: an offer is judged, keys are exchanged, secrets are shared (§11, §12).

Stage and message in, next stage and reply out. A function here returns a reply or raises; it never
half-acts.
"""

from __future__ import annotations

from itertools import pairwise

from nomoat.aggregation.errors import RemoteProtocolError
from nomoat.aggregation.protocol import signing
from nomoat.aggregation.secagg import coverage, graph, labels
from nomoat.aggregation.secagg.client.stages import (
    Checked,
    JoinedSession,
    Keyed,
    Reply,
    Shared,
    Volunteer,
    lie,
)
from nomoat.aggregation.secagg.diary import Mark
from nomoat.aggregation.secagg.masks import keys, masking, shares
from nomoat.aggregation.secagg.masks.shares import BadBox, HeldShares
from nomoat.aggregation.secagg.messages import (
    CheckReport,
    KeysReport,
    Participant,
    SessionOffer,
    SessionRoster,
    SharesDelivery,
    SharesReport,
)
from nomoat.aggregation.secagg.parameters import check_offer, check_thresholds
from nomoat.aggregation.secagg.transcript import offer_hash, session_hash


def on_offer(volunteer: Volunteer, offer: SessionOffer) -> Reply:
    """R0: check the offer against terms, policy and diary; send two signed public keys (§11)."""
    terms = volunteer.terms
    layout, rule = check_offer(offer, terms, volunteer.policy, volunteer.diary)
    offered = offer_hash(offer)
    box = keys.public_of(volunteer.secrets.box_private)
    mask = keys.public_of(volunteer.secrets.mask_private)
    signature = volunteer.identity.sign(labels.SIGN_KEYS, offered, box, mask, terms.modules)
    report = KeysReport(box, mask, signature, terms.modules)
    place = terms.place
    about = (offer.session, place.round, place.exchange, place.version, place.adapter)
    joined = Mark("joined", *about, at=place.now)
    return Reply(Keyed(volunteer, offer, layout, offered, report, joined, rule), report, (joined,))


def on_roster(stage: Keyed, roster: SessionRoster) -> Reply:
    """R0 → R1: check every participant, then deal shares to the neighbours (§11.4–§12.3)."""
    volunteer = stage.volunteer
    needed = check_thresholds(stage.offer, roster, volunteer.policy)
    index = check_members(stage, roster)
    transcript = session_hash(stage.offered, roster)
    ring = graph.build(len(roster.members), needed.neighbours, transcript)
    session = JoinedSession(
        transcript,
        volunteer.identity,
        stage.offer,
        tuple(member.identity for member in roster.members),
        needed,
        index,
        ring.neighbours(index),
        stage.blank,
        stage.rule,
        coverage.tiers([member.modules for member in roster.members], index),
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
        raise lie("§11.4", "participants are not in order, or one is there twice")
    public_keys = [key for member in members for key in (member.box_key, member.mask_key)]
    if len(set(public_keys)) != len(public_keys):
        raise lie("§11.4", "two participants have the same key")
    if stage.volunteer.identity.public not in identities:
        raise lie("§11.4", "the list of participants leaves this volunteer out")
    index = identities.index(stage.volunteer.identity.public)
    sent = stage.sent
    if members[index] != Participant(
        identities[index], sent.box_key, sent.mask_key, sent.signature, sent.modules
    ):
        raise lie("§11.4", "this volunteer's keys were exchanged")
    if unknown := [identity for identity in identities if identity not in names]:
        raise lie("§11.4", f"{len(unknown)} participants are not of the community")
    known = len(stage.volunteer.terms.known & set(identities) - {identities[index]})
    if known < stage.volunteer.policy.known_peers:
        raise lie("§11.4", f"only {known} participants are long known to this machine")
    for member in members:
        _check_member(member, stage.offered, names[member.identity])
    return index


def _check_member(member: Participant, offered: bytes, name: str) -> None:
    signed = (offered, member.box_key, member.mask_key, member.modules)
    try:
        signing.verify(member.identity, member.signature, labels.SIGN_KEYS, *signed)
        keys.check_public(member.box_key)
        keys.check_public(member.mask_key)
    except signing.BadSignature:
        # Another offer, or not its keys: either way the coordinator passed it on.
        raise lie("§11.4", f"the keys of {name} are not signed for this session") from None
    except keys.BadKey as problem:
        raise RemoteProtocolError(name, "§11.4", f"its key {problem}") from None


def _agree_all(
    stage: Keyed, session: JoinedSession, roster: SessionRoster
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
        raise lie("§12.4", "boxes are out of order, repeated, or not from neighbours")
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
