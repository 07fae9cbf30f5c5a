"""The coordinator's collectors of R0 and R1: keys, shares, and complaints about them (§11, §12).

A collector takes one volunteer's answer at a time (RemoteProtocolError names a bad one) and closes
into the next collector and what to send, or raises TooFew: nothing has been revealed then.
"""

from __future__ import annotations

from collections.abc import Mapping

from nomoat.aggregation.errors import LocalProtocolError, RemoteProtocolError
from nomoat.aggregation.protocol import signing
from nomoat.aggregation.secagg import graph, labels
from nomoat.aggregation.secagg.masks import keys
from nomoat.aggregation.secagg.messages import (
    BOX_BYTES,
    AddressedBox,
    CheckReport,
    KeysReport,
    Participant,
    SessionOffer,
    SessionRoster,
    SharesDelivery,
    ShareSet,
    SharesReport,
)
from nomoat.aggregation.secagg.parameters import RosterView, agreed_thresholds
from nomoat.aggregation.secagg.server.collector import Collector, Outgoing, ServerPhase, TooFew
from nomoat.aggregation.secagg.server.formed_session import FormedSession, box_between
from nomoat.aggregation.secagg.server.masked import CollectMasked
from nomoat.aggregation.secagg.transcript import offer_hash, session_hash, to_bitmap
from nomoat.aggregation.sums.fixed_point import ClipLayout


class CollectKeys(Collector):
    """R0 (§11)."""

    phase = ServerPhase.KEYS
    accepts = KeysReport

    def __init__(
        self,
        offer: SessionOffer,
        layout: ClipLayout,
        roster: RosterView,
        invited: frozenset[bytes],
        audit_seed: bytes = b"",
    ) -> None:
        self._audit_seed = audit_seed
        self.expected = invited
        self._offer, self._layout, self._roster = offer, layout, roster
        self._offered = offer_hash(offer)
        self._members: dict[bytes, Participant] = {}
        self._taken: set[bytes] = set()

    def take(self, sender: bytes, report: KeysReport) -> None:
        """Keep one volunteer's keys, if they are signed, sound and nobody else's."""
        name = self._roster.names[sender]
        both = (report.box_key, report.mask_key)
        try:
            signed = (self._offered, *both, report.modules)
            signing.verify(sender, report.signature, labels.SIGN_KEYS, *signed)
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
        self._members[sender] = Participant(sender, *both, report.signature, report.modules)

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
        session = FormedSession(
            self._offer,
            self._layout,
            self._roster.names,
            members,
            needed,
            transcript,
            tuple(ring.neighbours(i) for i in range(len(members))),
            {member.identity: i for i, member in enumerate(members)},
            roster,
            self._audit_seed,
        )
        return CollectShares(session), dict.fromkeys(self._members, roster)


class CollectShares(Collector):
    """R1, first half (§12.3)."""

    phase = ServerPhase.SHARES
    accepts = SharesReport

    def __init__(self, session: FormedSession) -> None:
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


class CollectChecks(Collector):
    """R1, second half (§12.5)."""

    phase = ServerPhase.CHECKS
    accepts = CheckReport

    def __init__(self, session: FormedSession, dealt: Mapping[int, SharesReport]) -> None:
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
        """Accuser → accused, by identity."""
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
