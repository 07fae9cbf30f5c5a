"""The coordinator's machine: it collects one kind of message at a time, and closes the collection.

Theory. It is a mailbox that everybody checks: keys and boxes pass through it signed and encrypted,
masked vectors go straight into one running sum, and of each secret it gets the one share that the
survivor set allows. It cannot choose who is in the sum once a quorum has signed: it can only give
up. So a phase ends in one of two ways, with enough answers to restore every mask, or without a sum;
there is no sum of fewer. Blame is kept apart: a wrong answer names its sender and costs the others
nothing, as long as enough are left.

Use. The caller brings answers and time; names are its own, here a volunteer is its public key:

    session = ServerSession(offer, manifest, roster)
    step = session.open(volunteers)
    while not session.over:
        send(step.outgoing)
        for sender, message in answers(until=deadline):    # or until session.ready
            session.receive(sender, message)               # RemoteProtocolError: that one is out
        step = session.close()
    step.result                                            # the mean; None: step.reason

Whoever does not answer before `close` has dropped out and is in `silent`; whoever answers wrongly
is out and in `blamed`; whoever complained about whom is in `complaints`. The collectors below are
the machine, one a phase, and TRANSITIONS has every move between them (docs/protocol.md §18). It
holds one running sum, never a volunteer's masked vector.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum
from itertools import pairwise

from nomoat.aggregation.errors import LocalProtocolError, RemoteProtocolError
from nomoat.aggregation.protocol.adapter import Manifest
from nomoat.aggregation.secagg.audit.evidence import Evidence
from nomoat.aggregation.secagg.messages import (
    Abandoned,
    SessionOffer,
    ToCoordinator,
    ToVolunteer,
)
from nomoat.aggregation.secagg.parameters import RosterView, agreed_thresholds
from nomoat.aggregation.secagg.server.collector import BadSecret, Collector, ServerPhase, TooFew
from nomoat.aggregation.secagg.server.masked import CollectMasked
from nomoat.aggregation.secagg.server.setup import CollectChecks, CollectKeys, CollectShares
from nomoat.aggregation.secagg.server.sketching import CollectSketches
from nomoat.aggregation.secagg.server.summing import CollectReveals, CollectSignatures
from nomoat.aggregation.secagg.thresholds import is_weak
from nomoat.aggregation.secagg.transcript import manifest_hash
from nomoat.aggregation.sums.fixed_point import ClipLayout, FixedPoint, SummedMean

COLLECTORS: tuple[type[Collector], ...] = (
    CollectKeys,
    CollectShares,
    CollectChecks,
    CollectMasked,
    CollectSketches,
    CollectSignatures,
    CollectReveals,
)
ACCEPTS: Mapping[ServerPhase, type[ToCoordinator]] = {
    collector.phase: collector.accepts for collector in COLLECTORS
}


class ServerEvent(Enum):
    """Reasons for a session to be in another phase than before."""

    GO_ON = "the session was opened, or a phase closed with enough answers"
    SKIP = "the phase after is not asked for: the session is not audited"
    GIVE_UP = "the session cannot go on"


_WAY = (ServerPhase.NEW, *ACCEPTS, ServerPhase.DONE)
TRANSITIONS: Mapping[tuple[ServerPhase, ServerEvent], ServerPhase] = {
    **{(before, ServerEvent.GO_ON): after for before, after in pairwise(_WAY)},
    (ServerPhase.MASKED, ServerEvent.SKIP): ServerPhase.SIGNATURES,
    **{(before, ServerEvent.GIVE_UP): ServerPhase.ABANDONED for before in _WAY[:-1]},
}


@dataclass(frozen=True, slots=True)
class ServerStep:
    """Instructions: send every message of `outgoing`; in DONE, use `result`."""

    phase: ServerPhase
    outgoing: Mapping[bytes, ToVolunteer] = field(default_factory=dict)
    result: SummedMean | None = None
    reason: str = ""  # why it was abandoned


class ServerSession:
    """One session, from the offer to the sum or to nothing."""

    def __init__(
        self, offer: SessionOffer, manifest: Manifest, roster: RosterView, audit_seed: bytes = b""
    ) -> None:
        if bool(offer.audit_kind) != bool(audit_seed):
            raise LocalProtocolError("an audit needs the seed that its offer commits to")
        self._audit_seed = audit_seed
        if offer.manifest_hash != manifest_hash(manifest) or offer.roster_root != roster.root:
            raise LocalProtocolError("the offer is not about this manifest and this roster")
        if is_weak(offer.n_min) and not offer.weak:
            raise LocalProtocolError(f"{offer.n_min} participants are weak; the offer must say so")
        FixedPoint(offer.value_bits, offer.n_max)
        self.offer, self.phase = offer, ServerPhase.NEW
        self.blamed: dict[bytes, str] = {}
        self.proofs: dict[bytes, Evidence] = {}  # of what the audit has shown
        self.sizes: dict[bytes, float] = {}  # of updates, over the bound, by the audit
        self.undecoded = False  # the sum was none of updates
        self.complaints: dict[bytes, tuple[bytes, ...]] = {}
        self.silent: set[bytes] = set()
        self.bearable = 0  # c, once the participants are known
        self.least = offer.n_min  # fewer answers end the session
        self._layout, self._roster = ClipLayout(manifest, offer.clips), roster
        self._collector: Collector | None = None
        self._joined: frozenset[bytes] = frozenset()
        self._answered: set[bytes] = set()
        self._excluded: set[bytes] = set()

    def open(self, volunteers: Collection[bytes]) -> ServerStep:
        """Offer the session to these volunteers, n_max of them at most."""
        invited = frozenset(volunteers)
        if self.phase is not ServerPhase.NEW:
            raise LocalProtocolError("a session is opened once")
        if len(invited) != len(volunteers) or not invited <= self._roster.names.keys():
            raise LocalProtocolError("volunteers are repeated or not of the roster")
        if len(invited) > self.offer.n_max:
            raise LocalProtocolError(
                f"{len(invited)} volunteers are more than the {self.offer.n_max} offered"
            )
        self._collector = CollectKeys(
            self.offer, self._layout, self._roster, invited, self._audit_seed
        )
        self._joined = invited
        self._move(ServerEvent.GO_ON)
        return ServerStep(self.phase, dict.fromkeys(invited, self.offer))

    @property
    def waiting(self) -> frozenset[bytes]:
        """The identities that may still answer in this phase."""
        if self._collector is None:
            return frozenset()
        return self._collector.expected - self._answered - self.blamed.keys() - self._excluded

    @property
    def members(self) -> frozenset[bytes]:
        """The identities that this phase, or the last one, counts on; not all are waited for."""
        return self._joined

    @property
    def ready(self) -> bool:
        """True if there is nothing more to wait for."""
        return not self.waiting or (self._collector is not None and self._collector.enough)

    @property
    def over(self) -> bool:
        """True if the session has ended, with a sum or without."""
        return self.phase in (ServerPhase.DONE, ServerPhase.ABANDONED)

    def receive(self, sender: bytes, message: ToCoordinator) -> None:
        """Take one answer; RemoteProtocolError if it is late, unexpected or wrong.

        A wrong answer puts the sender out of the session and into `blamed`; a late or repeated one
        changes nothing.
        """
        name = self._roster.names.get(sender, "an unknown volunteer")
        if self._collector is None or sender not in self.waiting:
            raise RemoteProtocolError(name, "§18", f"its {type(message).__name__} is not expected")
        try:
            if type(message) is not self._collector.accepts:
                sent = type(message).__name__
                raise RemoteProtocolError(name, "§18", f"it sent {sent} while {self.phase.value}")
            self._collector.take(sender, message)
        except RemoteProtocolError as problem:
            self.blamed[sender] = problem.reason
            raise
        self._answered.add(sender)

    def exclude(self, sender: bytes) -> None:
        """Put a volunteer out that has gone, or whose bytes did not decode; it is not blamed."""
        self._excluded.add(sender)

    def close(self) -> ServerStep:
        """End the phase: go on with whoever answered, or abandon if they are too few."""
        if self._collector is None:
            raise LocalProtocolError(f"a session that is {self.phase.value} cannot be closed")
        self.complaints |= self._collector.accusations
        if not self._collector.enough:
            self.silent |= self.waiting
        closing = self._collector
        try:
            following, outgoing = closing.close()
        except TooFew as problem:
            return self.abandon(str(problem))
        except BadSecret as problem:
            self.blamed.setdefault(problem.dealer, str(problem))
            return self.abandon("a volunteer dealt shares that cannot be used")
        except LocalProtocolError:  # the sum does not decode, and masks hide whose fault it is
            self.undecoded = True
            return self.abandon("the sum is not one of well-formed updates")
        finally:
            self.blamed = closing.faults | self.blamed
            self.proofs = closing.proofs | self.proofs
            self.sizes = closing.sizes | self.sizes
        if self.phase is ServerPhase.KEYS and isinstance(following, Collector):
            needed = agreed_thresholds(self.offer, len(following.expected))
            self.bearable, self.least = needed.corrupt, needed.survivors
        self._answered = set()
        skips = self.phase is ServerPhase.MASKED and not self._audit_seed
        self._move(ServerEvent.SKIP if skips else ServerEvent.GO_ON)
        if isinstance(following, SummedMean):
            self._collector = None
            return ServerStep(self.phase, outgoing, following)
        self._collector = following
        self._joined = following.expected
        return ServerStep(self.phase, outgoing)

    def abandon(self, reason: str) -> ServerStep:
        """End the session without a sum; tells everyone who is still in it."""
        if self.over:
            raise LocalProtocolError(f"a session that is {self.phase.value} cannot be abandoned")
        self._move(ServerEvent.GIVE_UP)
        self._collector = None
        told = dict.fromkeys(self._joined, Abandoned(reason))
        return ServerStep(self.phase, told, reason=reason)

    def _move(self, event: ServerEvent) -> None:
        self.phase = TRANSITIONS[self.phase, event]
