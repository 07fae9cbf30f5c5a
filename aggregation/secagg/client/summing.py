"""A volunteer from R2 on: its vector is masked, the survivors are signed, shares are revealed.

Stage and message in, next stage and reply out (§13 to §15).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np

from nomoat.aggregation.errors import LocalProtocolError
from nomoat.aggregation.secagg import certificate, coverage, labels
from nomoat.aggregation.secagg.audit.spread import effective_values
from nomoat.aggregation.secagg.audit.terms import point_of
from nomoat.aggregation.secagg.client.stages import (
    AuditKeys,
    Checked,
    JoinedSession,
    Masked,
    Reply,
    Signed,
    Volunteer,
    lie,
)
from nomoat.aggregation.secagg.diary import cohort_digest
from nomoat.aggregation.secagg.masks import masking
from nomoat.aggregation.secagg.messages import (
    Certificate,
    MaskedReport,
    RevealReport,
    SessionOffer,
    ShareSet,
    SurvivorSet,
    SurvivorSignature,
)
from nomoat.aggregation.secagg.noise.sampling import NoiseStream
from nomoat.aggregation.secagg.noise.shares import room_for_rounding, share_of
from nomoat.aggregation.sums.fixed_point import Contribution, FixedPoint, Ring
from nomoat.aggregation.sums.norm_bound import norm_of


def on_share_set(stage: Checked, share_set: ShareSet) -> Reply:
    """R2: mask the vector against everyone in U2, then forget the own secrets (§13)."""
    session, volunteer = stage.session, stage.volunteer
    members = session.set_of(share_set.members, "§13.1")
    _check_share_set(stage, members)
    own_key = masking.self_mask_key(volunteer.secrets.self_seed, session.transcript, session.index)
    pairs = {i: key for i, key in stage.pair_keys.items() if i in members}
    modules = frozenset(
        module
        for module, tier in session.tiers.items()
        if coverage.enough(session.offer, tier, members)
    )
    contribution = _contribution(volunteer, modules, all_of_it=len(modules) == len(session.tiers))
    _check_spread(contribution, session.offer, volunteer)
    masked = masking.masked_vector(
        _within(contribution, session.offer),
        stage.layout,
        point_of(session.offer, len(session.identities)),
        volunteer.secrets.rounding_key,
        masking.client_masks(own_key, session.index, pairs),
        _noise(session, volunteer),
    )
    digest = hashlib.sha256(masked).digest()
    signed = (session.transcript, share_set.members, digest)
    signature = session.identity.sign(labels.SIGN_MASKED, *signed)
    volunteer.secrets.erase()
    audit = AuditKeys(own_key, pairs, stage.layout.length) if session.offer.audit_kind else None
    tiers = frozenset(session.tiers[module] for module in modules)
    following = Masked(session, share_set.members, members, stage.held, tiers, audit)
    # From here on the update may be in a sum, whether or not this volunteer hears of it (§19.1).
    return Reply(following, MaskedReport(signature, masked), (session.mark("masked"),))


def _check_spread(contribution: Contribution, offer: SessionOffer, volunteer: Volunteer) -> None:
    """Refuse to have an update sketched that has few values, of which it would tell all (§20.7)."""
    least = volunteer.policy.audit_values
    if not offer.audit_kind or not least:
        return
    found = effective_values(contribution.vector)
    if found < least:
        raise lie("§20.7", f"an audit would tell too much: only {found:.0f} values have changed")


def _noise(session: JoinedSession, volunteer: Volunteer) -> Callable[[int], Ring] | None:
    """This volunteer's share of the sum's noise, None if it has none (§21.2)."""
    count, offer = len(session.identities), session.offer
    if not offer.noise_multiplier:
        return None
    share = share_of(offer, count, point_of(offer, count).limit)
    return NoiseStream(volunteer.secrets.noise_key, share.units).integers


def _within(contribution: Contribution, offer: SessionOffer) -> Contribution:
    """The vector as it is summed: under noise it is within the bound when it is rounded, too."""
    if not offer.noise_multiplier:
        return contribution
    vector = contribution.vector
    if norm_of(vector) > offer.clip_l2 * (1 + 1e-5):
        raise LocalProtocolError("an update beyond its bound is not what the noise was made for")
    limit = FixedPoint(offer.value_bits, 1).limit
    factor = room_for_rounding(offer, len(vector), limit) * (1 - 1e-5)
    return Contribution(vector * np.float32(factor))


def _contribution(
    volunteer: Volunteer, modules: frozenset[int], *, all_of_it: bool
) -> Contribution:
    """The vector, less the modules that too few have trained (§11.7)."""
    if all_of_it:
        return volunteer.contribution
    if volunteer.limited is None:
        raise lie("§11.7", "too few participants have trained what this volunteer has")
    return volunteer.limited(modules)


def _check_share_set(stage: Checked, members: frozenset[int]) -> None:
    session = stage.session
    if session.index not in members:
        raise lie("§13.1", "U2 leaves this volunteer out")
    if len(members) < session.needed.survivors:
        raise lie("§13.1", f"{len(members)} of {session.needed.survivors} needed have shared")
    circle = session.circle(members)
    if not set(circle) <= stage.held.keys():
        # Complained about, or its box was withheld: its secrets could not be recovered.
        raise lie("§13.1", "U2 holds a neighbour whose shares this volunteer does not have")
    if len(circle) < session.needed.shares:
        raise lie("§13.1", f"{len(circle)} neighbours are in U2, {session.needed.shares} needed")
    session.rule.check(session.cohort(members))


def on_survivors(stage: Masked, proposal: SurvivorSet) -> Reply:
    """R3: sign the one survivor set of this session (§14)."""
    session = stage.session
    survivors = session.set_of(proposal.members, "§14.1")
    if session.index not in survivors:
        raise lie("§14.2", "U3 leaves this volunteer out")
    if not survivors <= stage.members:
        raise lie("§14.2", "U3 holds someone who is not in U2")
    if len(survivors) < session.needed.survivors:
        raise lie("§14.2", f"{len(survivors)} survive of {session.needed.survivors} needed")
    alive = len(session.circle(survivors)) - 1
    if alive < session.needed.alive:
        # A coordinator that chooses the dropouts would cut this volunteer off from all but a few.
        raise lie("§14.2", f"{alive} neighbours survive of {session.needed.alive} needed")
    if not all(coverage.enough(session.offer, tier, survivors) for tier in stage.tiers):
        raise lie("§14.2", "too few survive of those who trained a module that is summed")
    session.rule.check(session.cohort(survivors))
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
        raise lie("§15.1", f"the certificate {problem}") from None
    # Which of the two is revealed follows from U3 alone: nobody can ask for the other (§15.2).
    revealed = b"".join(
        held[i].seed if i in stage.survivors else held[i].key
        for i in session.circle(stage.masked.members)
    )
    signed = (session.transcript, stage.statement.survivors, revealed)
    signature = session.identity.sign(labels.SIGN_REVEAL, *signed)
    mark = session.mark("revealed", cohort_digest(session.cohort(stage.survivors)))
    return Reply(None, RevealReport(revealed, signature), (mark,))
