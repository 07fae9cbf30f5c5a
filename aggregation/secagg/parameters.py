"""The terms of a session: an offer, and a volunteer's pinned policy, which nobody can lower."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from nomoat.aggregation.errors import LocalProtocolError, RemoteProtocolError
from nomoat.aggregation.protocol.adapter import Manifest
from nomoat.aggregation.protocol.wire import COORDINATOR
from nomoat.aggregation.secagg.audit.sketch import WORDS
from nomoat.aggregation.secagg.audit.terms import KIND, can_audit, point_of
from nomoat.aggregation.secagg.diary import CohortRule, Mark, Place, permitted
from nomoat.aggregation.secagg.messages import SessionOffer, SessionRoster
from nomoat.aggregation.secagg.noise.shares import can_be_noisy
from nomoat.aggregation.secagg.thresholds import (
    WEAK_BELOW,
    Assumptions,
    Thresholds,
    is_weak,
    thresholds,
)
from nomoat.aggregation.secagg.transcript import manifest_hash
from nomoat.aggregation.sums.fixed_point import ClipLayout, FixedPoint, most_value_bits

VALUE_BITS = 21  # a step of 2^-20 of the clip bound: far below what float32 training notices
DEFAULT_ASSUMPTIONS = Assumptions(corrupt_permille=100, dropout_permille=300)


@dataclass(frozen=True, slots=True)
class NoiseRule:
    """The noise this machine counts on (§21.4): at least `multiplier` times the bound in each sum.

    participations: sums it takes part in, ever. min_gap: rounds from one to the next.
    """

    multiplier: float
    participations: int
    min_gap: int = 1


@dataclass(frozen=True, slots=True)
class Policy:
    """The least a volunteer accepts; below 8 participants only with `allow_weak`, too.

    known_peers: how many other participants must be of `Terms.known`, which slows a coordinator
    that invents volunteers down to the speed at which it can age them. repeats: how many sums with
    other participants may follow a first one from the same adapter within a day (§19.4). fewest:
    the owner's own minimum, of those who take part; an offer may name fewer, who then are too few.
    audit_words: the longest sketch of an update that is given away, 0 for none (§20); audit_values:
    the fewest values that it may be of (§20.7). noise: what was agreed to of noise in sums, None if
    nothing was.
    """

    min_participants: int = WEAK_BELOW
    allow_weak: bool = False
    min_corrupt_permille: int = 100
    known_peers: int = 0
    repeats: int = 2
    fewest: int = 0
    audit_words: int = 0
    audit_values: int = 0
    noise: NoiseRule | None = None

    @property
    def least(self) -> int:
        """The smallest session this policy accepts."""
        return max(self.min_participants, 2 if self.allow_weak else WEAK_BELOW)


@dataclass(frozen=True, slots=True)
class RosterView:
    """The community as this machine knows it: log head (32 bytes) and identity → name."""

    root: bytes
    names: Mapping[bytes, str]


@dataclass(frozen=True, slots=True)
class Terms:
    """All that this volunteer knows without being told: its round, models, shapes and peers.

    version: what it trained from, 32 bytes; of its own adapter the digest where there is no
    lineage. now: unix time. work: `work_hash` of its task. standing: digest of the RoundEnd that it
    trained after; empty where it follows no lineage.
    modules: bitmap of those of the adapter that it has trained (§11.7).
    """

    round: int
    exchange: int
    base_hash: bytes
    adapter_hash: bytes
    manifest: Manifest
    roster: RosterView
    known: frozenset[bytes] = frozenset()
    version: bytes = b""
    now: int = 0
    work: bytes = bytes(32)
    standing: bytes = b""
    modules: bytes = b"\x01"

    @property
    def place(self) -> Place:
        """The place of a sum on these terms among all sums."""
        version = self.version or self.adapter_hash
        return Place(self.round, self.exchange, version, self.adapter_hash, self.now)


def propose(
    session: bytes,
    terms: Terms,
    clips: tuple[float, ...],
    sizes: tuple[int, int],
    assumed: Assumptions = DEFAULT_ASSUMPTIONS,
    clip_l2: float = 0.0,
) -> SessionOffer:
    """The coordinator's offer of a session of sizes[0] to sizes[1] participants.

    session: 32 fresh random bytes. clips: one bound per tensor of terms.manifest. Asking for fewer
    than 8 participants is asking for a weak session. Values get 21 bits, or as many as fit.
    clip_l2: the bound on an update's L2 norm, 0 for none.
    """
    n_min, n_max = sizes
    return SessionOffer(
        session,
        terms.round,
        terms.exchange,
        terms.base_hash,
        terms.adapter_hash,
        manifest_hash(terms.manifest),
        terms.roster.root,
        clips,
        min(VALUE_BITS, most_value_bits(n_max)),
        n_min,
        n_max,
        assumed.corrupt_permille,
        assumed.dropout_permille,
        is_weak(n_min),
        clip_l2,
        work=terms.work,
        standing=terms.standing or bytes(32),
        n_each=sizes[0],
    )


def check_offer(
    offer: SessionOffer, terms: Terms, policy: Policy, diary: Collection[Mark]
) -> tuple[ClipLayout, CohortRule]:
    """The layout to encode in and the rule for participants, if the offer is one to accept.

    Else RemoteProtocolError (§11.2).
    """
    about = (offer.round, offer.exchange, offer.base_hash, offer.adapter_hash)
    if about != (terms.round, terms.exchange, terms.base_hash, terms.adapter_hash):
        raise _refusal("the session is about another round or another model than the training")
    if offer.manifest_hash != manifest_hash(terms.manifest):
        raise _refusal("the session sums other tensors than were trained")
    if offer.work != terms.work:
        raise _refusal("the session sums other work than this machine was asked for")
    if terms.standing and offer.standing != terms.standing:
        raise _refusal("the session's participants were shown other versions than this machine")
    if offer.roster_root != terms.roster.root:
        raise _refusal("the session's roster is not the one this machine knows")
    if offer.audit_kind:
        _check_audit(offer, policy, terms.manifest.size)
    if offer.corrupt_permille < policy.min_corrupt_permille:
        raise _refusal(f"the session assumes fewer than {policy.min_corrupt_permille}‰ corrupt")
    _check_noise(offer, policy, diary)
    _check_size(offer, policy)
    _check_diary(offer, diary)
    rule = permitted(terms.place, diary, policy.repeats)
    try:
        FixedPoint(offer.value_bits, offer.n_max)
        point_of(offer, offer.n_max)
        return ClipLayout(terms.manifest, offer.clips), rule
    except LocalProtocolError as problem:
        raise _refusal(str(problem)) from None


def _check_audit(offer: SessionOffer, policy: Policy, values: int) -> None:
    if not policy.audit_words:
        raise _refusal("the session audits updates, which this machine's owner has not agreed to")
    if offer.audit_kind != KIND:
        raise _refusal(
            f"the session audits by sketches of kind {offer.audit_kind}; this release makes those "
            f"of kind {KIND}"
        )
    if policy.audit_words < WORDS:
        raise _refusal(
            f"the session asks for sketches of {WORDS} words; this machine's owner has "
            f"agreed to {policy.audit_words}"
        )
    if not can_audit(offer):
        raise _refusal("the session's audit is not one that can be")
    if values < policy.audit_values:
        raise _refusal(
            f"the session's audit would tell too much of an update of {values} values; this "
            f"machine sketches {policy.audit_values} or more"
        )


def _check_noise(offer: SessionOffer, policy: Policy, diary: Collection[Mark]) -> None:
    """Refuse what would cost more privacy than was agreed to (§21.4)."""
    if offer.noise_multiplier and not can_be_noisy(offer):
        raise _refusal("the session's noise has no bound to be measured by")
    rule = policy.noise
    if rule is None:
        return
    if offer.noise_multiplier < rule.multiplier * (1 - 1e-9):
        raise _refusal(
            f"the session's noise is {offer.noise_multiplier:g} times the bound; "
            f"{rule.multiplier:g} was agreed to on joining"
        )
    rounds = {mark.session: mark.round for mark in diary if mark.kind == "masked"}
    if len(rounds) >= rule.participations:
        raise _refusal(
            f"this machine has been in {len(rounds)} sums, which is all that its privacy allows"
        )
    if rounds and offer.round - max(rounds.values()) < rule.min_gap:
        raise _refusal(f"{rule.min_gap} rounds lie between two sums with this machine")


def _check_size(offer: SessionOffer, policy: Policy) -> None:
    if offer.n_min > offer.n_max:
        raise _refusal("the session's smallest size is above its largest")
    if is_weak(offer.n_min) and not (offer.weak and policy.allow_weak):
        raise _refusal(f"{offer.n_min} participants are weak, and both sides have to ask for that")
    if (fewest := min(offer.n_min, offer.n_each)) < policy.least:
        raise _refusal(
            f"{fewest} participants are fewer than this machine's {policy.least}; to agree to "
            "fewer, leave and join again"
        )


def _check_diary(offer: SessionOffer, diary: Collection[Mark]) -> None:
    # Secrets of a session die with the process, and keys are never used twice: a session that
    # was joined once, in this process or an earlier one, is over for this volunteer.
    if any(mark.session == offer.session for mark in diary):
        raise _refusal("this machine has taken part in that session before")


def agreed_thresholds(offer: SessionOffer, participants: int) -> Thresholds:
    """k, t, q for that many participants under the offer's assumptions (§17)."""
    assumed = Assumptions(offer.corrupt_permille, offer.dropout_permille)
    return thresholds(participants, assumed)


def check_thresholds(offer: SessionOffer, roster: SessionRoster, policy: Policy) -> Thresholds:
    """The session's thresholds, if its size and numbers are what they must be (§11.5)."""
    n = len(roster.members)
    if not max(offer.n_min, policy.least) <= n <= offer.n_max:
        raise _refusal(f"{n} participants, agreed were {offer.n_min} to {offer.n_max}", "§11.5")
    if n < policy.fewest:
        reason = f"{n} participants, and this machine takes part among {policy.fewest} or more"
        raise _refusal(f"{reason} (min_participants in settings.toml)", "§11.5")
    try:
        needed = agreed_thresholds(offer, n)
    except LocalProtocolError as problem:
        raise _refusal(str(problem), "§11.5") from None
    told = (roster.neighbours, roster.shares, roster.quorum)
    if told != (needed.neighbours, needed.shares, needed.quorum):
        raise _refusal(
            f"k, t, q are {told}; {n} participants need "
            f"{(needed.neighbours, needed.shares, needed.quorum)}",
            "§11.5",
        )
    return needed


def _refusal(reason: str, section: str = "§11.2") -> RemoteProtocolError:
    return RemoteProtocolError(COORDINATOR, section, reason)
