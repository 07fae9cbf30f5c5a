"""The mean of a cohort's uploads under masks: the coordinator sees only the sum.

It drives aggregation/secagg's ServerSession: names to identities, packets to messages, deadlines
to closed phases. Whoever breaks the protocol is out of the session and named (protocol §5-§10).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from nomoat.aggregation.errors import RemoteProtocolError
from nomoat.aggregation.methods.base import PlaintextReport
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.adapter import Manifest, Vector
from nomoat.aggregation.protocol.messages import Decline, ExchangeReply, Noted
from nomoat.aggregation.secagg.audit.evidence import to_bytes
from nomoat.aggregation.secagg.audit.judgement import DOUBT
from nomoat.aggregation.secagg.messages import Abandoned, SessionOffer, ToVolunteer
from nomoat.aggregation.secagg.parameters import RosterView
from nomoat.aggregation.secagg.server.collector import ServerPhase
from nomoat.aggregation.secagg.server.session import ACCEPTS, ServerSession, ServerStep
from nomoat.aggregation.sums.norm_bound import NormBound
from nomoat.server.rounds.machines.evidence import SessionEvidence
from nomoat.server.rounds.machines.interfaces import Outgoing
from nomoat.server.rounds.machines.patience import Waiting

GRACE_S = 1.0
DISPUTED = "its word against a neighbour's about their common mask"
IN_DOUBT = "set aside from this sum, nobody's fault: chance may be what makes its update look large"
LATE = "too late to report"
NAMED = 3  # of those who complain
ENOUGH = 0.75  # of those asked, before the others are hurried
FOREVER = Waiting()


@dataclass(frozen=True)
class MaskedSetup:
    """A masked exchange to be: its offer, what it sums, who may take part, how long to wait.

    reply: what the exchange before gave; volunteers get it before the session opens. phase: after
    so long a phase goes on with whoever has answered. bound: of the offer's clip_l2, None without
    one. audit_seed: what the offer commits to, empty without an audit.
    """

    offer: SessionOffer
    manifest: Manifest
    roster: RosterView
    reply: bytes = b""
    phase: Waiting = FOREVER
    bound: NormBound | None = None
    audit_seed: bytes = b""


class MaskedExchange:
    """One secure-aggregation session over a cohort of names."""

    def __init__(self, cohort: tuple[str, ...], masked: MaskedSetup) -> None:
        identities = {name: identity for identity, name in masked.roster.names.items()}
        # Whoever has left or been banned since it said that it was ready is not asked.
        self._identities: Mapping[str, bytes] = {
            name: identities[name] for name in cohort if name in identities
        }
        self._masked = masked
        self._session = ServerSession(
            masked.offer, masked.manifest, masked.roster, masked.audit_seed
        )
        self._noting: set[str] = set(self._identities) if masked.reply else set()
        self._gone: set[str] = set()
        self._wrong: dict[str, str] = {}
        self._asked = 0.0  # when the present phase began
        self._answered: list[float] = []  # the times of its answers
        self.lost = {name: "no longer a member" for name in cohort if name not in identities}
        self.next_deadline = math.inf
        self.mean: Vector | None = None
        self.uploads: tuple[PlaintextReport, ...] = ()  # never: that is the point of it
        self.contributors: tuple[str, ...] = ()
        self.refused: dict[str, str] = {}  # empty: what is wrong shows at once, or never
        self.failed: str | None = None
        self.bound = masked.bound

    @property
    def done(self) -> bool:
        """The mean is found, or cannot be."""
        return self.mean is not None or self.failed is not None

    @property
    def evidence(self) -> SessionEvidence:
        """Return what the session has shown of its participants so far."""
        session, names = self._session, self._masked.roster.names
        wrong = {names[identity]: reason for identity, reason in session.blamed.items()}
        complaints = {
            names[accuser]: tuple(names[one] for one in accused)
            for accuser, accused in session.complaints.items()
        }
        failed = self.failed is not None
        silent = frozenset(name for name, reason in self.lost.items() if reason == LATE)
        proofs = {names[one]: to_bytes(found) for one, found in session.proofs.items()}
        sizes = {names[one]: size for one, size in session.sizes.items()}
        seen = (self._wrong | wrong, complaints, session.bearable, failed, silent, proofs, sizes)
        return SessionEvidence(*seen, undecoded=session.undecoded)

    def start(self, now: float) -> list[Outgoing]:
        """Hand out the reply of the exchange before, if any; else open the session at once."""
        self._begin_phase(now)
        if not self._noting:
            return self._open(now)
        offer = self._masked.offer
        note = ExchangeReply(offer.round, offer.exchange, offer.adapter_hash, self._masked.reply)
        packet = wire.encode(note)
        return [Outgoing(name, packet) for name in sorted(self._noting)]

    def receive(self, volunteer: str, packet: wire.Packet, now: float) -> list[Outgoing]:
        """Take one answer; RemoteProtocolError names whoever sent a wrong one.

        Answers of those who are not waited for (any more) change nothing.
        """
        if volunteer not in self._awaited:
            return []
        if wire.peek_kind(packet, volunteer) == wire.kind_of(Decline):
            reason = wire.decode(packet, Decline, volunteer).reason
            raise RemoteProtocolError(volunteer, "§5", f"left the session: {reason}")
        try:
            return self._take(volunteer, packet, now)
        except RemoteProtocolError as problem:
            self._wrong.setdefault(volunteer, problem.reason)
            raise

    @property
    def _awaited(self) -> Collection[str]:
        """The volunteers that may answer now."""
        if self._session.phase is ServerPhase.NEW:
            return self._noting
        names = self._masked.roster.names
        return {names[identity] for identity in self._session.waiting} - self._gone

    def _take(self, volunteer: str, packet: wire.Packet, now: float) -> list[Outgoing]:
        if self._session.phase is ServerPhase.NEW:
            return self._take_note(volunteer, packet, now)
        message = wire.decode(packet, ACCEPTS[self._session.phase], volunteer)
        self._session.receive(self._identities[volunteer], message)
        if self._session.phase is ServerPhase.MASKED:  # U3 is who got this far
            self.contributors = tuple(sorted((*self.contributors, volunteer)))
        self._answered.append(now)
        return self._go_on(now)

    def leave(self, volunteer: str, reason: str, now: float) -> list[Outgoing]:
        """Go on without this volunteer."""
        if volunteer in self._gone or volunteer not in self._identities:
            return []
        self._gone.add(volunteer)
        if self._session.phase is ServerPhase.NEW:
            self._noting.discard(volunteer)
            return [] if self._noting else self._open(now)
        if self._session.phase is ServerPhase.MASKED:
            self.contributors = tuple(name for name in self.contributors if name != volunteer)
        self._session.exclude(self._identities[volunteer])
        return self._go_on(now)

    def wake(self, now: float) -> list[Outgoing]:
        """Close a phase whose time is up."""
        if self.done or now < self.next_deadline:
            return []
        if self._session.phase is ServerPhase.NEW:
            self._gone |= self._noting
            self.lost |= dict.fromkeys(self._noting, LATE)
            return self._open(now)
        return self._close(now)

    def _take_note(self, volunteer: str, packet: wire.Packet, now: float) -> list[Outgoing]:
        wire.decode(packet, Noted, volunteer)
        self._noting.discard(volunteer)
        return [] if self._noting else self._open(now)

    def _open(self, now: float) -> list[Outgoing]:
        here = [self._identities[name] for name in self._identities if name not in self._gone]
        return self._follow(self._session.open(here), now)

    def _go_on(self, now: float) -> list[Outgoing]:
        if self.done:
            return []
        if not self._session.waiting:
            return self._close(now)
        if self._masked.phase.patience is not None:
            waits = replace(self._masked.phase, minimum=self._session.least, share=ENOUGH)
            self.next_deadline = waits.until(self._asked, self._answered, self._awaited)
        if self._session.ready:  # enough answers; the last ones may be on their way
            self.next_deadline = min(self.next_deadline, now + GRACE_S)
        return []

    def _close(self, now: float) -> list[Outgoing]:
        before = self._session.members
        step = self._session.close()
        names = self._masked.roster.names
        for one in self._session.silent:
            self.lost.setdefault(names[one], LATE)
        if step.phase is ServerPhase.MASKED:
            for identity in before - self._session.members:
                self.lost.setdefault(names[identity], self._why_left_out(identity))
        if step.phase is ServerPhase.SIGNATURES:
            self._leave_out(before - self._session.members)
        return self._follow(step, now)

    def _leave_out(self, identities: Collection[bytes]) -> None:
        """Note whose masked vectors are not in the sum any more, and why."""
        names, session = self._masked.roster.names, self._session
        known = {one: IN_DOUBT for one, size in session.sizes.items() if size > DOUBT}
        known |= session.blamed
        gone = {names[one]: known.get(one, DISPUTED) for one in identities}
        self.contributors = tuple(name for name in self.contributors if name not in gone)
        for name, why in gone.items():
            self.lost.setdefault(name, why)

    def _why_left_out(self, identity: bytes) -> str:
        names = self._masked.roster.names
        accusers = sorted(
            names[accuser]
            for accuser, accused in self._session.complaints.items()
            if identity in accused
        )
        if not accusers:
            return "too few of its neighbours are left"
        return f"its shares were complained about by {', '.join(accusers[:NAMED])}"

    def _begin_phase(self, now: float) -> None:
        self._asked, self._answered = now, []
        self.next_deadline = self._masked.phase.until(now, (), ())

    def _follow(self, step: ServerStep, now: float) -> list[Outgoing]:
        self._begin_phase(now)
        if step.result is not None:
            self.mean = step.result.mean
        elif self._session.over:
            self.failed = f"secure aggregation abandoned: {step.reason}"
        outgoing = self._packets(step.outgoing)
        if not self.done and not self._session.waiting:
            return outgoing + self._close(now)
        return outgoing

    def _packets(self, messages: Mapping[bytes, ToVolunteer]) -> list[Outgoing]:
        """Encode, each distinct message once; those who are gone need not be told."""
        encoded: dict[int, wire.Packet] = {}
        outgoing = []
        for identity, message in messages.items():
            name = self._masked.roster.names[identity]
            if name in self._gone and not isinstance(message, Abandoned):
                continue
            if id(message) not in encoded:
                encoded[id(message)] = wire.encode(message)
            packet = encoded[id(message)]
            outgoing.append(Outgoing(name, packet))
        return sorted(outgoing, key=lambda item: item.volunteer)
