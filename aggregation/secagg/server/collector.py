"""One phase of the coordinator's session: which answers it takes, and the ways in which it ends.

A collector takes one volunteer's answer at a time (RemoteProtocolError names a bad one) and closes
into the collector of the next phase and what to send, or raises TooFew.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from enum import Enum
from typing import Any, ClassVar, TypeAlias

from nomoat.aggregation.secagg.audit.evidence import Evidence
from nomoat.aggregation.secagg.messages import ToCoordinator, ToVolunteer
from nomoat.aggregation.sums.fixed_point import SummedMean

Outgoing: TypeAlias = Mapping[bytes, ToVolunteer]


class ServerPhase(Enum):
    """The coordinator's place in a session."""

    NEW = "not opened"
    KEYS = "collecting keys"
    SHARES = "collecting shares"
    CHECKS = "collecting checks"
    MASKED = "collecting masked vectors"
    SKETCHES = "collecting sketches of masks"
    SIGNATURES = "collecting signatures on the survivors"
    REVEALS = "collecting revealed shares"
    DONE = "done"
    ABANDONED = "abandoned"


class TooFew(Exception):
    """The session cannot go on; its text is a fixed phrase that may be sent to volunteers."""


class BadSecret(Exception):
    """Everybody revealed what it was dealt, and it does not make the dealer's secret (§15.5)."""

    def __init__(self, dealer: bytes) -> None:
        super().__init__("its shares do not make the secret that it committed to")
        self.dealer = dealer


class Collector(ABC):
    """One phase. `expected` are the identities whose answers it takes, each of type `accepts`."""

    phase: ClassVar[ServerPhase]
    accepts: ClassVar[type[ToCoordinator]]
    expected: frozenset[bytes]

    @abstractmethod
    def take(self, sender: bytes, report: Any) -> None:
        """Keep one answer, of type `accepts`; RemoteProtocolError names a bad one's sender."""

    @abstractmethod
    def close(self) -> tuple[Collector | SummedMean, Outgoing]:
        """End the phase: the next one, or the sum, and what to send."""

    @property
    def faults(self) -> dict[bytes, str]:
        """Identity → its own signed lie, of those that closing this phase has shown."""
        return {}

    @property
    def proofs(self) -> dict[bytes, Evidence]:
        """Identity → what anybody can find its lie from, of those that closing has shown."""
        return {}

    @property
    def sizes(self) -> dict[bytes, float]:
        """Identity → how large its update is, over the bound, as far as closing has shown."""
        return {}

    @property
    def enough(self) -> bool:
        """True if more answers would add nothing, so that nobody need be waited for."""
        return False

    @property
    def accusations(self) -> dict[bytes, tuple[bytes, ...]]:
        """Accuser → accused, by identity, of what has been taken in this phase."""
        return {}
