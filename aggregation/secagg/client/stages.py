"""A volunteer's knowledge at each stage of a session: frozen, and no more than is still needed.

What a stage does not carry on is gone: after the masked vector is out, no secret of this volunteer
is left, and only its neighbours' shares are held.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from nomoat.aggregation.errors import LocalProtocolError, RemoteProtocolError
from nomoat.aggregation.protocol import signing
from nomoat.aggregation.protocol.wire import COORDINATOR
from nomoat.aggregation.secagg import certificate
from nomoat.aggregation.secagg.diary import CohortRule, Kind, Mark
from nomoat.aggregation.secagg.masks import keys
from nomoat.aggregation.secagg.masks.shares import HeldShares
from nomoat.aggregation.secagg.messages import KeysReport, SessionOffer, ToCoordinator
from nomoat.aggregation.secagg.parameters import Policy, Terms
from nomoat.aggregation.secagg.thresholds import Thresholds
from nomoat.aggregation.secagg.transcript import BadSet, from_bitmap
from nomoat.aggregation.sums.fixed_point import ClipLayout, Contribution

Limited: TypeAlias = Callable[[frozenset[int]], Contribution]


@dataclass(frozen=True)
class Volunteer:
    """A participant: its key, terms, policy and update.

    secrets: fresh ones, for this session alone. limited: the contribution of some modules alone,
    where too few others have trained the rest (§11.7).
    """

    identity: signing.SigningKey = field(repr=False)
    terms: Terms = field(repr=False)
    policy: Policy
    diary: Collection[Mark] = field(repr=False)
    contribution: Contribution = field(repr=False)
    secrets: keys.SessionSecrets = field(repr=False)
    limited: Limited | None = field(default=None, repr=False)

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
    layout: ClipLayout
    offered: bytes  # the offer's hash
    sent: KeysReport
    blank: Mark  # what all marks of this session have in common
    rule: CohortRule


@dataclass(frozen=True)
class JoinedSession:
    """After R0: everything that all participants have in common, and this one's place in it."""

    transcript: bytes
    identity: signing.SigningKey = field(repr=False)
    offer: SessionOffer
    identities: tuple[bytes, ...]
    needed: Thresholds
    index: int
    neighbours: tuple[int, ...]
    blank: Mark
    rule: CohortRule
    tiers: Mapping[int, frozenset[int]]  # module that was trained here → all who trained it

    def set_of(self, bitmap: bytes, section: str) -> frozenset[int]:
        """A bitmap as indices, or RemoteProtocolError."""
        try:
            return from_bitmap(bitmap, len(self.identities))
        except BadSet as problem:
            raise lie(section, f"a set {problem}") from None

    def mark(self, kind: Kind, cohort: bytes = b"") -> Mark:
        """A diary line about this session."""
        return replace(self.blank, kind=kind, cohort=cohort)

    def cohort(self, members: frozenset[int]) -> list[bytes]:
        """The identities of these members."""
        return [self.identities[index] for index in sorted(members)]

    def circle(self, members: frozenset[int]) -> tuple[int, ...]:
        """Those of the neighbours and itself that are in `members`, ascending."""
        return tuple(i for i in sorted({*self.neighbours, self.index}) if i in members)


@dataclass(frozen=True)
class Shared:
    """After R1's first half: own shares are dealt."""

    session: JoinedSession
    volunteer: Volunteer
    layout: ClipLayout
    box_secrets: Mapping[int, bytes] = field(repr=False)
    pair_keys: Mapping[int, bytes] = field(repr=False)
    kept: bytes = field(repr=False)


@dataclass(frozen=True)
class Checked:
    """After R1: the neighbours' shares are held."""

    session: JoinedSession
    volunteer: Volunteer
    layout: ClipLayout
    pair_keys: Mapping[int, bytes] = field(repr=False)
    held: Mapping[int, HeldShares] = field(repr=False)


@dataclass(frozen=True)
class AuditKeys:
    """The keys of the own masks, which an audit asks sketches of, and the vector's length."""

    own: bytes = field(repr=False)
    pairs: Mapping[int, bytes] = field(repr=False)
    length: int


@dataclass(frozen=True)
class Masked:
    """After R2: the vector is out; only others' shares are left to protect."""

    session: JoinedSession
    shared: bytes  # bitmap of U2
    members: frozenset[int]  # U2
    held: Mapping[int, HeldShares] = field(repr=False)
    tiers: frozenset[frozenset[int]]  # who trained each module of the vector
    audit: AuditKeys | None = field(default=None, repr=False)  # until the audit is answered


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


def lie(section: str, reason: str) -> RemoteProtocolError:
    """The error for what only a lying coordinator sends."""
    return RemoteProtocolError(COORDINATOR, section, reason)
