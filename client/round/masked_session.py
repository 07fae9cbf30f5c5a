"""A volunteer's side of secure aggregation, without I/O: which session it is in, and on what terms.

The protocol is aggregation/secagg's ClientSession. Here a held update becomes a contribution, a
new offer ends whatever session went before it, and marks are kept for whoever persists them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from nomoat.aggregation.errors import RemoteProtocolError
from nomoat.aggregation.protocol.adapter import Vector
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.aggregation.protocol.wire import COORDINATOR
from nomoat.aggregation.secagg.client.session import ClientSession
from nomoat.aggregation.secagg.client.stages import Limited, Volunteer
from nomoat.aggregation.secagg.diary import Mark, Place, lost, spent
from nomoat.aggregation.secagg.masks.keys import SessionSecrets
from nomoat.aggregation.secagg.messages import SessionOffer, ToCoordinator, ToVolunteer
from nomoat.aggregation.secagg.parameters import Policy, RosterView, Terms
from nomoat.aggregation.sums.fixed_point import Contribution

MaskedAnswer: TypeAlias = tuple[ToCoordinator | None, tuple[Mark, ...]]


@dataclass(frozen=True)
class Membership:
    """The things that make this machine a member: its key, its roster, its policy, its randomness.

    entropy: session id → 32 bytes, from the operating system; a simulation derives them from its
    seed, where there is nothing to hide. required: never report without masks. known: the
    identities this machine has known for long (docs/protocol.md §11.4). clock: unix time, by which
    a diary is less strict after a day (§19.4).
    """

    identity: SigningKey = field(repr=False)
    roster: Callable[[], RosterView]
    policy: Policy
    entropy: Callable[[bytes], bytes] = field(repr=False)
    required: bool = True
    known: Callable[[], frozenset[bytes]] = frozenset
    clock: Callable[[], float] = lambda: 0.0


class MaskedSession:
    """One volunteer's sessions of secure aggregation, one at a time."""

    def __init__(self, membership: Membership, marks: tuple[Mark, ...] = ()) -> None:
        self.membership = membership
        self.marks = marks
        self._session: ClientSession | None = None

    def too_few_known(self) -> str | None:
        """Say why no session can satisfy the policy, if too few members are long known here."""
        member = self.membership
        if not member.policy.known_peers:
            return None
        peers = (member.known() & member.roster().names.keys()) - {member.identity.public}
        if len(peers) >= member.policy.known_peers:
            return None
        return (
            f"{len(peers)} other members are known to this machine for known_days, "
            f"{member.policy.known_peers} must be (known_peers in settings.toml)"
        )

    def open(
        self, offer: SessionOffer, terms: Terms, vector: Vector, limited: Limited | None = None
    ) -> MaskedAnswer:
        """Join the offered session with this update; any session before it is over.

        limited: the vector of some modules alone.
        """
        self.stop()
        secrets = SessionSecrets(self.membership.entropy(offer.session))
        self._session = ClientSession(
            Volunteer(
                self.membership.identity,
                terms,
                self.membership.policy,
                self.marks,
                Contribution(vector),
                secrets,
                limited,
            )
        )
        return self.receive(offer)

    def receive(self, message: ToVolunteer) -> MaskedAnswer:
        """(answer or None, marks to be stored before it is sent) for a message of the session.

        RemoteProtocolError if there is no session, or the message is a lie.
        """
        if self._session is None:
            raise RemoteProtocolError(COORDINATOR, "§13", "there is no session on this machine")
        step = self._session.receive(message)
        self.marks = (*self.marks, *step.persist)
        return step.outgoing, step.persist

    def stop(self) -> None:
        """End the present session, its secrets erased."""
        if self._session is not None:
            self._session.stop()
            self._session = None

    @property
    def now(self) -> int:
        """Unix time."""
        return int(self.membership.clock())

    @property
    def lost(self) -> bool:
        """True if the diary was lost and no version has been seen since (§19.5)."""
        return lost(self.marks)

    def spent(self, place: Place) -> bool:
        """Return True if no update of this place may enter a sum any more (§19.2)."""
        return spent(place.round, place.version, self.marks)

    def find_again(self, place: Place) -> tuple[Mark, ...]:
        """Begin anew after a lost diary: nothing leaves until the next version (§19.5).

        Returns the mark that says so, to be stored; none if nothing was lost.
        """
        if not self.lost:
            return ()
        about = (place.round, place.exchange, place.version, place.adapter)
        mark = Mark("lost", b"", *about, at=place.now)
        self.marks = (*self.marks, mark)
        return (mark,)
