"""All that the coordinator's session has fixed once the keys are in: members, graph, transcript."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from nomoat.aggregation.errors import RemoteProtocolError
from nomoat.aggregation.protocol import signing
from nomoat.aggregation.secagg.masks import shares
from nomoat.aggregation.secagg.messages import (
    Participant,
    SessionOffer,
    SessionRoster,
    SharesReport,
)
from nomoat.aggregation.secagg.server.collector import TooFew
from nomoat.aggregation.secagg.thresholds import Thresholds
from nomoat.aggregation.sums.fixed_point import ClipLayout


@dataclass(frozen=True)
class FormedSession:
    """A session whose members are known. Volunteers are indices from here on."""

    offer: SessionOffer
    layout: ClipLayout
    names: Mapping[bytes, str]
    members: tuple[Participant, ...]
    needed: Thresholds
    transcript: bytes
    neighbours: tuple[tuple[int, ...], ...]
    index_of: Mapping[bytes, int] = field(repr=False)
    roster: SessionRoster = field(repr=False)
    audit_seed: bytes = field(default=b"", repr=False)  # empty without an audit

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


def box_between(
    session: FormedSession, dealt: Mapping[int, SharesReport], source: int, destination: int
) -> bytes:
    """The box that `source` made for its neighbour `destination`."""
    position = session.neighbours[source].index(destination)
    return shares.box_at(dealt[source].boxes, position)
