"""What the coordinator collects in each phase, and what it makes of it when the phase is closed.

A collector takes one volunteer's answer at a time (RemoteProtocolError names a bad one) and closes
into the next collector and what to send, or raises TooFew: nothing has been revealed then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from nomoat.aggregation import signing
from nomoat.aggregation.errors import LocalProtocolError, RemoteProtocolError
from nomoat.aggregation.fixed_point import FixedPoint, Layout, WeightedSum, decode
from nomoat.aggregation.secagg import certificate, graph, keys, labels, shamir, shares, unmasking
from nomoat.aggregation.secagg.masking import MaskedSum, MaskKeys
from nomoat.aggregation.secagg.messages import (
    BOX_BYTES,
    AddressedBox,
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
    ToVolunteer,
)
from nomoat.aggregation.secagg.parameters import Roster, agreed_thresholds
from nomoat.aggregation.secagg.thresholds import Thresholds
from nomoat.aggregation.secagg.transcript import offer_hash, session_hash, to_bitmap

Outgoing: TypeAlias = Mapping[bytes, ToVolunteer]


class TooFew(Exception):
    """The session cannot go on; its text is a fixed phrase that may be sent to volunteers."""


class BadSecret(Exception):
    """Everybody revealed what it was dealt, and it does not make the dealer's secret (§15.5)."""

    def __init__(self, dealer: bytes) -> None:
        super().__init__("its shares do not make the secret that it committed to")
        self.dealer = dealer


class Collector(Protocol):
    """One phase of the session. expected: whose answers it takes."""

    expected: frozenset[bytes]

    def close(self) -> tuple[Collector | WeightedSum, Outgoing]:
        """End the phase: what follows, and what to send."""
        ...

    @property
    def enough(self) -> bool:
        """Whether waiting for more answers can be given up without losing anything."""
        ...


@dataclass(frozen=True)
class Session:
    """What is fixed once the keys are in. Volunteers are indices from here on."""

    offer: SessionOffer
    layout: Layout
    names: Mapping[bytes, str]
    members: tuple[Member, ...]
    needed: Thresholds
    transcript: bytes
    neighbours: tuple[tuple[int, ...], ...]
    index_of: Mapping[bytes, int] = field(repr=False)

    def circle(self, index: int, members: Collection[int]) -> tuple[int, ...]:
        """`index` and its neighbours, as far as they are in `members`, ascending."""
        return tuple(i for i in sorted((*self.neighbours[index], index)) if i in members)

    def identities(self, indices: Iterable[int]) -> frozenset[bytes]:
        """The public keys of these volunteers."""
        return frozenset(self.members[i].identity for i in indices)

    def bad(self, index: int, section: str, reason: str) -> RemoteProtocolError:
        """The error that names volunteer `index`."""
        return RemoteProtocolError(self.names[self.members[index].identity], section, reason)

    def check_signed(self, index: int, signature: bytes, label: str, *parts: bytes) -> None:
        """RemoteProtocolError unless volunteer `index` signed T and `parts`."""
        public = self.members[index].identity
        try:
            signing.verify(public, signature, label, self.transcript, *parts)
        except signing.BadSignature:
            raise self.bad(index, "§10.3", "its signature is not valid") from None

    def require(self, members: Collection[int], survivors: Collection[int], least: int) -> None:
        """TooFew unless every one of `members` has `least` of its circle among `survivors`."""
        if any(len(self.circle(index, survivors)) < least for index in members):
            raise TooFew("a volunteer lost too many neighbours")


class CollectKeys:
    """R0 (§11)."""

    enough = False

    def __init__(
        self, offer: SessionOffer, layout: Layout, roster: Roster, invited: frozenset[bytes]
    ) -> None:
        self.expected = invited
        self._offer, self._layout, self._roster = offer, layout, roster
        self._offered = offer_hash(offer)
        self._members: dict[bytes, Member] = {}
        self._taken: set[bytes] = set()

    def take(self, sender: bytes, report: KeysReport) -> None:
        """Keep one volunteer's keys, if they are signed, sound and nobody else's."""
        name = self._roster.names[sender]
        both = (report.box_key, report.mask_key)
        try:
            signing.verify(sender, report.signature, labels.SIGN_KEYS, self._offered, *both)
            for key in both:
                keys.check_public(key)
                keys.check_order(key)
        except signing.BadSignature:
            raise RemoteProtocolError(name, "§11.3", "its keys are not signed") from None
        except keys.BadKey as problem:
            raise RemoteProtocolError(name, "§11.3", f"its key {problem}") from None
        if both[0] == both[1] or self._taken & set(both):
            raise RemoteProtocolError(name, "§11.3", "its key is used twice")
        self._taken |= set(both)
        self._members[sender] = Member(sender, *both, report.signature)

    def close(self) -> tuple[Collector, Outgoing]:
        """Fix the participants and k, t, q; send everybody the list."""
        members = tuple(self._members[identity] for identity in sorted(self._members))
        if len(members) < self._offer.n_min:
            raise TooFew("too few volunteers sent keys")
        try:
            needed = agreed_thresholds(self._offer, len(members))
        except LocalProtocolError:
            raise TooFew("too few volunteers sent keys for the assumptions made") from None
        roster = SessionRoster(needed.neighbours, needed.shares, needed.quorum, members)
        transcript = session_hash(self._offered, roster)
        ring = graph.build(len(members), needed.neighbours, transcript)
        session = Session(
            self._offer,
            self._layout,
            self._roster.names,
            members,
            needed,
            transcript,
            tuple(ring.neighbours(i) for i in range(len(members))),
            {member.identity: i for i, member in enumerate(members)},
        )
        return CollectShares(session), dict.fromkeys(self._members, roster)


class CollectShares:
    """R1, first half (§12.3)."""

    enough = False

    def __init__(self, session: Session) -> None:
        self.expected = frozenset(session.index_of)
        self._session = session
        self._dealt: dict[int, SharesReport] = {}

    def take(self, sender: bytes, report: SharesReport) -> None:
        """Keep one volunteer's boxes."""
        session, index = self._session, self._session.index_of[sender]
        if len(report.boxes) != BOX_BYTES * len(session.neighbours[index]):
            raise session.bad(index, "§12.3", "it did not send one box per neighbour")
        body = (report.seed_commitment, report.own_commitment, report.boxes)
        session.check_signed(index, report.signature, labels.SIGN_SHARES, *body)
        self._dealt[index] = report

    def close(self) -> tuple[Collector, Outgoing]:
        """Deliver to everyone who shared the boxes that were made for it."""
        session = self._session
        if len(self._dealt) < session.needed.survivors:
            raise TooFew("too few volunteers shared")
        outgoing = {
            session.members[index].identity: SharesDelivery(self._boxes_for(index))
            for index in self._dealt
        }
        return CollectChecks(session, self._dealt), outgoing

    def _boxes_for(self, index: int) -> tuple[AddressedBox, ...]:
        return tuple(
            AddressedBox(source, box_between(self._session, self._dealt, source, index))
            for source in self._session.neighbours[index]
            if source in self._dealt
        )


class CollectChecks:
    """R1, second half (§12.5)."""

    enough = False

    def __init__(self, session: Session, dealt: Mapping[int, SharesReport]) -> None:
        self.expected = session.identities(dealt)
        self._session, self._dealt = session, dealt
        self._complaints: dict[int, tuple[int, ...]] = {}

    def take(self, sender: bytes, report: CheckReport) -> None:
        """Keep one volunteer's verdict on its boxes."""
        session, index = self._session, self._session.index_of[sender]
        accused = report.complaints
        if list(accused) != sorted(set(accused)) or not set(accused) <= set(
            session.neighbours[index]
        ) & set(self._dealt):
            raise session.bad(index, "§12.5", "it complains about someone it got no box from")
        signed = labels.index_bytes(*accused)
        session.check_signed(index, report.signature, labels.SIGN_CHECK, signed)
        self._complaints[index] = accused

    @property
    def accusations(self) -> dict[bytes, tuple[bytes, ...]]:
        """Who complained about whom."""
        keys_of = self._session.members
        return {
            keys_of[index].identity: tuple(keys_of[i].identity for i in accused)
            for index, accused in self._complaints.items()
            if accused
        }

    def close(self) -> tuple[Collector, Outgoing]:
        """U2: who shared and checked, less the accused, less those left with too few neighbours."""
        session = self._session
        accused = {index for complaint in self._complaints.values() for index in complaint}
        members = set(self._complaints) - accused
        while short := {
            i for i in members if len(session.circle(i, members)) < session.needed.shares
        }:
            members -= short
        if len(members) < session.needed.survivors:
            raise TooFew("too few volunteers could share with each other")
        following = CollectMasked(session, self._dealt, frozenset(members))
        share_set = ShareSet(to_bitmap(members, len(session.members)))
        return following, dict.fromkeys(following.expected, share_set)


class CollectMasked:
    """R2 (§13)."""

    enough = False

    def __init__(
        self, session: Session, dealt: Mapping[int, SharesReport], members: frozenset[int]
    ) -> None:
        self.expected = session.identities(members)
        self._session, self._dealt, self._members = session, dealt, members
        self._bitmap = to_bitmap(members, len(session.members))
        point = FixedPoint(session.offer.value_bits, len(session.members))
        self._sum = MaskedSum(session.layout.length, point)
        self._added: set[int] = set()

    def take(self, sender: bytes, report: MaskedReport) -> None:
        """Add one masked vector to the sum, if it is signed and whole."""
        session, index = self._session, self._session.index_of[sender]
        try:
            self._sum.check(report.masked)
        except LocalProtocolError as problem:
            raise session.bad(index, "§13.3", str(problem)) from None
        digest = hashlib.sha256(report.masked).digest()
        signed = (self._bitmap, digest)
        session.check_signed(index, report.signature, labels.SIGN_MASKED, *signed)
        self._sum.add(report.masked)
        self._added.add(index)

    def close(self) -> tuple[Collector, Outgoing]:
        """U3: whose vectors are in the sum."""
        session = self._session
        if len(self._added) < session.needed.survivors:
            raise TooFew("too few volunteers sent a masked update")
        session.require(self._members, self._added, session.needed.shares)
        session.require(self._added, self._added, session.needed.alive + 1)
        progress = Progress(session, self._dealt, self._members, frozenset(self._added), self._sum)
        following = CollectSignatures(progress)
        proposal = SurvivorSet(progress.statement.survivors)
        return following, dict.fromkeys(following.expected, proposal)


@dataclass(frozen=True)
class Progress:
    """After R2: U2, U3 and the masked sum."""

    session: Session
    dealt: Mapping[int, SharesReport]
    members: frozenset[int]  # U2
    survivors: frozenset[int]  # U3
    total: MaskedSum

    @property
    def statement(self) -> certificate.Statement:
        """What survivors sign."""
        count = len(self.session.members)
        sets = (to_bitmap(self.members, count), to_bitmap(self.survivors, count))
        return certificate.Statement(self.session.transcript, *sets)


class CollectSignatures:
    """R3 (§14)."""

    enough = False

    def __init__(self, progress: Progress) -> None:
        self.expected = progress.session.identities(progress.survivors)
        self._progress = progress
        self._signatures: dict[int, bytes] = {}

    def take(self, sender: bytes, report: SurvivorSignature) -> None:
        """Keep one survivor's signature."""
        session, index = self._progress.session, self._progress.session.index_of[sender]
        try:
            certificate.verify_one(sender, report.signature, self._progress.statement)
        except certificate.BadCertificate:
            raise session.bad(index, "§14.3", "its signature is not valid") from None
        self._signatures[index] = report.signature

    def close(self) -> tuple[Collector, Outgoing]:
        """The certificate, if a quorum signed and everything can be recovered from the signers."""
        session = self._progress.session
        if len(self._signatures) < session.needed.quorum:
            raise TooFew("too few volunteers signed the list of survivors")
        session.require(self._progress.members, self._signatures, session.needed.shares)
        following = CollectReveals(self._progress, frozenset(self._signatures))
        quorum = dict(sorted(self._signatures.items())[: session.needed.quorum])
        certified = certificate.assemble(quorum, len(session.members))
        return following, dict.fromkeys(following.expected, certified)


class CollectReveals:
    """R4 (§15)."""

    def __init__(self, progress: Progress, signers: frozenset[int]) -> None:
        self.expected = progress.session.identities(signers)
        self._progress = progress
        # owner → point → share of the one secret that U3 lets be recovered
        self._shares: dict[int, dict[int, bytes]] = {owner: {} for owner in progress.members}

    def take(self, sender: bytes, report: RevealReport) -> None:
        """Keep one volunteer's shares, if every one is the committed one."""
        progress, session = self._progress, self._progress.session
        index = session.index_of[sender]
        owners = session.circle(index, progress.members)
        if len(report.shares) != shamir.SHARE_BYTES * len(owners):
            raise session.bad(index, "§15.3", "it did not reveal one share per neighbour")
        signed = (progress.statement.survivors, report.shares)
        session.check_signed(index, report.signature, labels.SIGN_REVEAL, *signed)
        size = shamir.SHARE_BYTES
        revealed = [report.shares[at : at + size] for at in range(0, len(report.shares), size)]
        for owner, share in zip(owners, revealed, strict=True):
            self._check_share(owner, index, share)
        for owner, share in zip(owners, revealed, strict=True):
            self._shares[owner][shares.point_of(index)] = share

    def _check_share(self, owner: int, holder: int, share: bytes) -> None:
        progress, session = self._progress, self._progress.session
        survived = owner in progress.survivors
        label = labels.COMMIT_SEED_SHARE if survived else labels.COMMIT_KEY_SHARE
        if owner == holder:
            committed = progress.dealt[owner].own_commitment
        else:
            box = box_between(session, progress.dealt, owner, holder)
            committed = shares.commitments_in(box)[0 if survived else 1]
        ends = (owner, holder)
        if shares.commit_share(label, session.transcript, ends, share) != committed:
            dealer = session.names[session.members[owner].identity]
            raise session.bad(holder, "§15.4", f"it revealed a wrong share of {dealer}'s")

    @property
    def enough(self) -> bool:
        """Whether every secret that is needed can be recovered."""
        threshold = self._progress.session.needed.shares
        return all(len(found) >= threshold for found in self._shares.values())

    def close(self) -> tuple[WeightedSum, Outgoing]:
        """Recover the masks, take them out of the sum, and decode the weighted mean."""
        progress, session = self._progress, self._progress.session
        if not self.enough:
            raise TooFew("too few volunteers revealed their shares")
        try:
            total = progress.total.unmask(self._mask_keys())
        except unmasking.BadDealer as dealer:
            raise BadSecret(session.members[dealer.index].identity) from None
        point = FixedPoint(session.offer.value_bits, len(session.members))
        return decode(total, session.layout, point, len(progress.survivors)), {}

    def _mask_keys(self) -> MaskKeys:
        progress, session = self._progress, self._progress.session
        commitments = {i: progress.dealt[i].seed_commitment for i in progress.survivors}
        published = unmasking.Published(session.transcript, session.members, commitments)
        found = []
        for owner, held in self._shares.items():
            enough = dict(sorted(held.items())[: session.needed.shares])
            if owner in progress.survivors:
                seed = unmasking.recover_seed(published, owner, enough)
                found.append(unmasking.masks_of_survivor(published, owner, seed))
                continue
            private = unmasking.recover_mask_key(published, owner, enough)
            masked = frozenset(session.circle(owner, progress.survivors))
            found.append(unmasking.masks_of_dropout(published, owner, private, masked))
        add = tuple(key for one in found for key in one.add)
        return MaskKeys(add, tuple(key for one in found for key in one.subtract))


def box_between(
    session: Session, dealt: Mapping[int, SharesReport], source: int, destination: int
) -> bytes:
    """The box that `source` made for its neighbour `destination`."""
    position = session.neighbours[source].index(destination)
    return shares.box_at(dealt[source].boxes, position)
