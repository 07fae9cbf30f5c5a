"""The coordinator's machine: it collects one kind of message at a time, and closes the collection.

    session = ServerSession(offer, manifest, roster)
    step = session.open(volunteers)
    while not session.over:
        send(step.outgoing)
        for sender, message in answers(until=deadline):    # or until session.ready
            session.receive(sender, message)               # RemoteProtocolError: that one is out
        step = session.close()

Volunteers are named by their 32-byte public key. Whoever does not answer before `close` has
dropped out; whoever answers wrongly is out and in `blamed`. The tables below are the machine
(docs/protocol.md §18). It holds one running sum, never a volunteer's masked vector.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from nomoat.aggregation.errors import LocalProtocolError, RemoteProtocolError
from nomoat.aggregation.protocol.adapter import Manifest
from nomoat.aggregation.secagg.messages import (
    Abandoned,
    CheckReport,
    KeysReport,
    MaskedReport,
    RevealReport,
    SessionOffer,
    SharesReport,
    SurvivorSignature,
    ToCoordinator,
    ToVolunteer,
)
from nomoat.aggregation.secagg.parameters import Roster
from nomoat.aggregation.secagg.server_session import BadSecret, TooFew
from nomoat.aggregation.secagg.server_steps import CollectKeys
from nomoat.aggregation.secagg.thresholds import is_weak
from nomoat.aggregation.secagg.transcript import manifest_hash
from nomoat.aggregation.sums.fixed_point import FixedPoint, Layout, WeightedSum


class Phase(Enum):
    """Where the coordinator stands in a session."""

    NEW = "not opened"
    KEYS = "collecting keys"
    SHARES = "collecting shares"
    CHECKS = "collecting checks"
    MASKED = "collecting masked vectors"
    SIGNATURES = "collecting signatures on the survivors"
    REVEALS = "collecting revealed shares"
    DONE = "done"
    ABANDONED = "abandoned"


ACCEPTS: Mapping[Phase, type[ToCoordinator]] = {
    Phase.KEYS: KeysReport,
    Phase.SHARES: SharesReport,
    Phase.CHECKS: CheckReport,
    Phase.MASKED: MaskedReport,
    Phase.SIGNATURES: SurvivorSignature,
    Phase.REVEALS: RevealReport,
}
FOLLOWS: Mapping[Phase, Phase] = {
    Phase.NEW: Phase.KEYS,
    Phase.KEYS: Phase.SHARES,
    Phase.SHARES: Phase.CHECKS,
    Phase.CHECKS: Phase.MASKED,
    Phase.MASKED: Phase.SIGNATURES,
    Phase.SIGNATURES: Phase.REVEALS,
    Phase.REVEALS: Phase.DONE,
}


@dataclass(frozen=True, slots=True)
class ServerStep:
    """What to do now: send every message of `outgoing`; in DONE, use `result`."""

    phase: Phase
    outgoing: Mapping[bytes, ToVolunteer] = field(default_factory=dict)
    result: WeightedSum | None = None
    reason: str = ""  # why it was abandoned


class ServerSession:
    """One session, from the offer to the sum or to nothing."""

    def __init__(self, offer: SessionOffer, manifest: Manifest, roster: Roster) -> None:
        if offer.manifest_hash != manifest_hash(manifest) or offer.roster_root != roster.root:
            raise LocalProtocolError("the offer is not about this manifest and this roster")
        if is_weak(offer.n_min) and not offer.weak:
            raise LocalProtocolError(f"{offer.n_min} participants are weak; the offer must say so")
        FixedPoint(offer.value_bits, offer.n_max)
        self.offer, self.phase = offer, Phase.NEW
        self.blamed: dict[bytes, str] = {}
        self.complaints: dict[bytes, tuple[bytes, ...]] = {}
        self._layout, self._roster = Layout(manifest, offer.clips), roster
        self._collector: Any = None
        self._joined: frozenset[bytes] = frozenset()
        self._answered: set[bytes] = set()

    def open(self, volunteers: Collection[bytes]) -> ServerStep:
        """Offer the session to these volunteers, n_max of them at most."""
        invited = frozenset(volunteers)
        if self.phase is not Phase.NEW:
            raise LocalProtocolError("a session is opened once")
        if len(invited) != len(volunteers) or not invited <= self._roster.names.keys():
            raise LocalProtocolError("volunteers are repeated or not of the roster")
        if len(invited) > self.offer.n_max:
            raise LocalProtocolError(
                f"{len(invited)} volunteers are more than the {self.offer.n_max} offered"
            )
        self._collector = CollectKeys(self.offer, self._layout, self._roster, invited)
        self._joined = invited
        self.phase = FOLLOWS[self.phase]
        return ServerStep(self.phase, dict.fromkeys(invited, self.offer))

    @property
    def waiting(self) -> frozenset[bytes]:
        """Who may still answer in this phase."""
        if self._collector is None:
            return frozenset()
        expected: frozenset[bytes] = self._collector.expected
        return expected - self._answered - self.blamed.keys()

    @property
    def ready(self) -> bool:
        """Whether there is nothing more to wait for."""
        return not self.waiting or bool(self._collector.enough)

    @property
    def over(self) -> bool:
        """Whether the session has ended, with a sum or without."""
        return self.phase in (Phase.DONE, Phase.ABANDONED)

    def receive(self, sender: bytes, message: ToCoordinator) -> None:
        """Take one answer; RemoteProtocolError if it is late, unexpected or wrong.

        A wrong answer puts the sender out of the session and into `blamed`; a late or repeated one
        changes nothing.
        """
        name = self._roster.names.get(sender, "an unknown volunteer")
        if sender not in self.waiting:
            raise RemoteProtocolError(name, "§18", f"its {type(message).__name__} is not expected")
        try:
            if type(message) is not ACCEPTS[self.phase]:
                sent = type(message).__name__
                raise RemoteProtocolError(name, "§18", f"it sent {sent} while {self.phase.value}")
            self._collector.take(sender, message)
        except RemoteProtocolError as problem:
            self.blamed[sender] = problem.reason
            raise
        self._answered.add(sender)

    def exclude(self, sender: bytes, reason: str) -> None:
        """Put a volunteer out, e.g. for bytes that did not decode."""
        self.blamed.setdefault(sender, reason)

    def close(self) -> ServerStep:
        """End the phase: go on with whoever answered, or abandon if they are too few."""
        if self._collector is None:
            raise LocalProtocolError(f"a session that is {self.phase.value} cannot be closed")
        try:
            following, outgoing = self._collector.close()
        except TooFew as problem:
            return self.abandon(str(problem))
        except BadSecret as problem:
            self.exclude(problem.dealer, str(problem))
            return self.abandon("a volunteer dealt shares that cannot be used")
        except LocalProtocolError:  # the sum does not decode, and masks hide whose fault it is
            return self.abandon("the sum is not one of well-formed updates")
        self.complaints |= getattr(self._collector, "accusations", {})
        self.phase = FOLLOWS[self.phase]
        self._answered = set()
        if isinstance(following, WeightedSum):
            self._collector = None
            return ServerStep(self.phase, outgoing, following)
        self._collector = following
        self._joined = following.expected
        return ServerStep(self.phase, outgoing)

    def abandon(self, reason: str) -> ServerStep:
        """End the session without a sum; tells everyone who is still in it."""
        if self.over:
            raise LocalProtocolError(f"a session that is {self.phase.value} cannot be abandoned")
        self.phase = Phase.ABANDONED
        self._collector = None
        told = dict.fromkeys(self._joined, Abandoned(reason))
        return ServerStep(self.phase, told, reason=reason)
