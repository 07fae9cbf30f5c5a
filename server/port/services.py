"""The coordinator's parts that its port serves, and who may speak there."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

from nomoat.aggregation.protocol.community.addresses import AddressStatement
from nomoat.aggregation.protocol.community.presence import Presence
from nomoat.aggregation.protocol.community.terms import TermsEdition
from nomoat.aggregation.protocol.enrolment import CommunityInfo, Standing
from nomoat.aggregation.protocol.history.restoration import Restorations
from nomoat.aggregation.protocol.roster import Member
from nomoat.aggregation.protocol.terms.privacy_terms import PrivacyTerms
from nomoat.aggregation.protocol.work_terms import WorkTerms
from nomoat.server.community.members import Registrar
from nomoat.server.community.versions import VersionStore
from nomoat.server.consent.ledger import ConsentLedger
from nomoat.server.fleet.clock_doubts import ClockDoubts
from nomoat.server.fleet.link_state import FleetState
from nomoat.server.fleet.sealed_grid import Addressee
from nomoat.server.port.request_limits import Caps


class Directory:
    """Node keys (PEM) of those who may speak, from the roster; follows it as it grows."""

    def __init__(self, registrar: Registrar) -> None:
        self._registrar = registrar
        # The roster's length and members that are followed so far; replaced whole: threads.
        self._known: tuple[int, Mapping[str, Member], dict[bytes, Addressee]] = (-1, {}, {})
        self._replacing = threading.Lock()

    def __call__(self, pem: bytes) -> str | None:
        """The volunteer with this node key, if it may speak."""
        found = self.addressee(pem)
        return None if found is None else found.name

    def addressee(self, pem: bytes) -> Addressee | None:
        """Name and identity of the volunteer with this node key, if it may speak."""
        return self._approved().get(pem)

    @property
    def latest(self) -> Mapping[bytes, Addressee]:
        """Those who might speak when that was asked last, by key; another object once changed."""
        return self._known[2]

    def now(self) -> Callable[[bytes], str | None]:
        """Return the names of those who may speak now, by key: the roster is asked for once."""
        approved = self._approved()

        def name_of(pem: bytes) -> str | None:
            found = approved.get(pem)
            return None if found is None else found.name

        return name_of

    def _approved(self) -> dict[bytes, Addressee]:
        roster = self._registrar.known()
        length, members, by_pem = self._known
        if roster.length != length:
            by_pem = followed(by_pem, members, roster.members)
            with self._replacing:  # a thread that was slower must not take back who came since
                if roster.length > self._known[0]:
                    self._known = (roster.length, roster.members, by_pem)
        return by_pem


def followed(
    by_pem: Mapping[bytes, Addressee], before: Mapping[str, Member], now: Mapping[str, Member]
) -> dict[bytes, Addressee]:
    """Return those who may speak now, by key: `by_pem`, of `before`, and what has changed since.

    A member that is the same object in both has not: a roster of thousands grows by one.
    """
    changed = [(name, member) for name, member in now.items() if before.get(name) is not member]
    found = dict(by_pem)
    for name, _ in changed:
        if (known := before.get(name)) is not None:
            found.pop(to_pem(known.binding.node_key), None)
    for name, member in changed:
        if member.standing is Standing.APPROVED:
            found[to_pem(member.binding.node_key)] = Addressee(name, member.binding.identity)
    return found


@dataclass(frozen=True)
class Asking:
    """The questions of members who wait, what is waited for and which terms hold; their consent.

    addresses: where the community is reached, now or soon.
    """

    presence: Callable[[], Presence | None]
    edition: TermsEdition
    consents: ConsentLedger
    addresses: AddressStatement


@dataclass(frozen=True)
class PortServices:
    """The parts a request may reach. info: the community's signed description at a unix time.

    max_objects: most Flower objects one reply may be made of. restored: the community's statements
    that it was. clock: unix time. work, privacy: what it asks of a volunteer's machine, and learns
    of its updates, signed. asking: what is told to members who wait. doubts: of this clock.
    """

    state: FleetState
    registrar: Registrar
    versions: VersionStore
    info: Callable[[int], CommunityInfo]
    max_objects: int
    restored: Callable[[], Restorations] = lambda: Restorations(())
    caps: Caps = field(default_factory=Caps)
    clock: Callable[[], float] = time.time
    work: WorkTerms | None = None
    asking: Asking | None = None
    privacy: PrivacyTerms | None = None
    doubts: ClockDoubts = field(default_factory=ClockDoubts)

    def now(self) -> int:
        """Unix time in seconds."""
        return int(self.clock())


@functools.lru_cache(maxsize=1 << 15)  # a roster that grows by one is spelt by one
def to_pem(der: bytes) -> bytes:
    """A public key as Flower spells it."""
    key = load_der_public_key(der)
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
