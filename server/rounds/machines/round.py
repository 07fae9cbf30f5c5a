"""One round, as a pure machine: it says what to send, and is told what came back and when.

A round passes through three conversations, each a machine of its own: everyone trains
(local_training.py), the updates are added up (plain_exchange.py or masked_exchange.py, several
times where a method asks for it), everyone measures the candidate (federated_evaluation.py). Then
the candidate takes the old adapter's place, or does not (acceptance.py). This machine hands every
answer to the conversation of its phase, and moves on when that one is done.

The phase is set in one place, by TRANSITIONS: an event that is not in the table for the phase a
round is in is a mistake of ours and raises LocalProtocolError, whatever volunteers sent. Nothing a
volunteer sends raises anything: it is refused by its name, and the round goes on with the others,
or is abandoned when too few are left. An abandoned round leaves the federation as it was.

There is no clock in here, no socket and no thread: times are seconds on the caller's clock, and a
round can be played through in a test in microseconds:

    round = Round(plan, method, open_exchange)
    outgoing = round.start(now=0.0)              # the task, for each of the cohort
    while not round.done:
        send(outgoing)
        answer = receive(until=round.next_deadline)
        outgoing = round.receive(*answer, now()) if answer else round.wake(now())
    round.outcome                                # committed or not, why, where to go on from

rounds/driver.py is that loop over Flower's Grid.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from enum import Enum

import numpy as np

from nomoat.aggregation.errors import LocalProtocolError, RemoteProtocolError
from nomoat.aggregation.methods import AnyMethod, server_optimizer
from nomoat.aggregation.methods.base import PlaintextMethod, SummedMethod
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.adapter import Adapter, Vector, as_bytes
from nomoat.aggregation.sums.parallel import Run
from nomoat.server.rounds.acceptance import Acceptance, HeldOutLosses, judge
from nomoat.server.rounds.federation import FederationCheckpoint
from nomoat.server.rounds.machines.federated_evaluation import FederatedEvaluation, evaluation_of
from nomoat.server.rounds.machines.interfaces import Exchange, Outgoing, ProtocolMachine
from nomoat.server.rounds.machines.local_training import LocalTraining
from nomoat.server.rounds.machines.round_plan import (
    Events,
    OpenExchange,
    Outcome,
    RoundPhase,
    RoundPlan,
)
from nomoat.server.rounds.records import with_own
from nomoat.server.rounds.suspicion.claims import misfits


class RoundEvent(Enum):
    """The events that move a round on."""

    STARTED = "started"
    ENOUGH_READY = "enough ready"
    TOO_FEW = "too few"
    SUMMED = "summed"
    ACCEPTED = "accepted"
    REJECTED = "rejected"


TRANSITIONS: Mapping[tuple[RoundPhase, RoundEvent], RoundPhase] = {
    (RoundPhase.NEW, RoundEvent.STARTED): RoundPhase.TRAINING,
    (RoundPhase.TRAINING, RoundEvent.ENOUGH_READY): RoundPhase.AGGREGATING,
    (RoundPhase.TRAINING, RoundEvent.TOO_FEW): RoundPhase.ABANDONED,
    (RoundPhase.AGGREGATING, RoundEvent.TOO_FEW): RoundPhase.ABANDONED,
    (RoundPhase.AGGREGATING, RoundEvent.SUMMED): RoundPhase.EVALUATING,
    (RoundPhase.EVALUATING, RoundEvent.ACCEPTED): RoundPhase.COMMITTED,
    (RoundPhase.EVALUATING, RoundEvent.REJECTED): RoundPhase.ABANDONED,
}


class Round:
    """One round of `method`, over the volunteers of `plan`, from where the federation stands.

    run: how the layers of a sum are worked on.
    """

    def __init__(
        self, plan: RoundPlan, method: AnyMethod, open_exchange: OpenExchange, run: Run = map
    ) -> None:
        self.plan = plan
        self.phase = RoundPhase.NEW
        self.outcome: Outcome | None = None
        self._method = method
        self._open_exchange = open_exchange
        self._run = run
        self._training = LocalTraining(plan.task, plan.cohort, method, plan.training)
        self.events = Events(self._training.ready)
        self._exchange: Exchange | None = None  # the present one, or the last
        self._exchange_number = 0
        self._reply: Vector | None = None  # to the exchange before
        self._candidate = replace(plan.before, round=plan.task.round)
        self._evaluation: FederatedEvaluation | None = None

    @property
    def done(self) -> bool:
        """True once the round has its outcome."""
        return self.outcome is not None

    @property
    def stage(self) -> str:
        """The name of its phase."""
        return self.phase.value

    @property
    def next_deadline(self) -> float:
        """The time at which `wake` has something to do, inf if there is none."""
        return math.inf if self._inner is None else self._inner.next_deadline

    @property
    def stragglers(self) -> Mapping[str, float]:
        """Return who still trains, though the round goes on without it, and its hour of silence."""
        return self._training.late

    @property
    def to_measure(self) -> Adapter | None:
        """The candidate, while the round waits for the coordinator's own measurement of it."""
        waits = self.phase is RoundPhase.EVALUATING and self._evaluation is not None
        return self._evaluation.to_measure if waits and self._evaluation else None

    def measured(self, loss: float | None, now: float) -> list[Outgoing]:
        """Take the candidate's loss on the evaluation split; None if it could not be measured."""
        assert self._evaluation is not None
        return self._go_on(self._evaluation.measured(loss, now), now)

    def start(self, now: float) -> list[Outgoing]:
        """Announce the round to its cohort."""
        self._move(RoundEvent.STARTED, now)
        return self._go_on(self._training.start(now), now)

    def receive(self, volunteer: str, packet: wire.Packet, now: float) -> list[Outgoing]:
        """Take one answer; whoever breaks the protocol is refused by name and left out."""
        if self._inner is None:
            return []
        try:
            return self._go_on(self._inner.receive(volunteer, packet, now), now)
        except RemoteProtocolError as problem:
            return self.refuse(volunteer, problem.reason, now)

    def refuse(self, volunteer: str, reason: str, now: float) -> list[Outgoing]:
        """Go on without a volunteer that breaks the protocol, and name it."""
        self.events.refused.setdefault(volunteer, reason)
        return self._without(volunteer, "refused", now)

    def leave(self, volunteer: str, reason: str, now: float) -> list[Outgoing]:
        """Go on without a volunteer that will not answer."""
        self.events.lost.setdefault(volunteer, reason)
        return self._without(volunteer, reason, now)

    def wake(self, now: float) -> list[Outgoing]:
        """Act on deadlines that have passed."""
        return [] if self._inner is None else self._go_on(self._inner.wake(now), now)

    @property
    def _inner(self) -> ProtocolMachine | None:
        """The conversation of the present phase."""
        inner: Mapping[RoundPhase, ProtocolMachine | None] = {
            RoundPhase.TRAINING: self._training,
            RoundPhase.AGGREGATING: self._exchange,
            RoundPhase.EVALUATING: self._evaluation,
        }
        return inner.get(self.phase)

    def _without(self, volunteer: str, reason: str, now: float) -> list[Outgoing]:
        if self._inner is None:
            return []
        return self._go_on(self._inner.leave(volunteer, reason, now), now)

    def _go_on(self, outgoing: list[Outgoing], now: float) -> list[Outgoing]:
        """Pass on what the inner conversation says, and move on when it is done."""
        assert self._inner is not None
        self.events.refused = {**self._inner.refused, **self.events.refused}
        if not self._inner.done:
            return outgoing
        following = {
            RoundPhase.TRAINING: self._trained,
            RoundPhase.AGGREGATING: self._collected,
            RoundPhase.EVALUATING: self._evaluated,
        }
        return outgoing + following[self.phase](now)

    def _trained(self, now: float) -> list[Outgoing]:
        self._lose(self._training.lost)
        found, needed = len(self.events.ready), self.plan.min_reports
        if found < needed:
            return self._abandon(RoundEvent.TOO_FEW, f"{found} of {needed} ready", now)
        self._move(RoundEvent.ENOUGH_READY, now)
        return self._next_exchange(tuple(sorted(self.events.ready)), b"", now)

    def _next_exchange(self, cohort: tuple[str, ...], reply: bytes, now: float) -> list[Outgoing]:
        self._exchange_number += 1
        ranks = {name: self.events.ready[name].rank for name in cohort}
        self._exchange = self._open_exchange(ranks, self._exchange_number, reply)
        return self._go_on(self._exchange.start(now), now)

    def _collected(self, now: float) -> list[Outgoing]:
        exchange = self._exchange
        assert exchange is not None
        summed = exchange.contributors if exchange.failed is None else ()
        self._lose({name: why for name, why in exchange.lost.items() if name not in summed})
        evidence = exchange.evidence
        self.events.sessions += evidence.parts or (evidence,)
        self.events.left_out += evidence.left_out
        if evidence.undecoded:  # a bad sum like one beyond its bound
            self.events.contributors = exchange.contributors
        if exchange.bound is not None and self._exchange_number == 1:
            self.events.norm_bound = exchange.bound.limit
        if exchange.failed is not None:
            return self._abandon(RoundEvent.TOO_FEW, exchange.failed, now)
        before, number, method = self.plan.before, self.plan.task.round, self._method
        if isinstance(method, PlaintextMethod):
            state = method.commit_each(before.state, exchange.uploads, number)
            return self._evaluate(replace(self._candidate, state=state), exchange, now)
        assert exchange.mean is not None
        if (fault := self._fault_of_mean(exchange.mean)) is not None:
            self.events.contributors = exchange.contributors
            self._move(RoundEvent.SUMMED, now)
            return self._abandon(RoundEvent.REJECTED, fault, now)
        if self._exchange_number < method.traits.exchanges:
            self._reply = method.reply(
                before.state, exchange.mean, number, self._exchange_number, self._run
            )
            return self._next_exchange(exchange.contributors, as_bytes(self._reply), now)
        moved, moments = server_optimizer.move(
            method, self.plan.optimizer, (before.state, before.moments), exchange.mean, number
        )
        state = method.commit(before.state, moved, number, self._reply, self._run)
        return self._evaluate(replace(self._candidate, state=state, moments=moments), exchange, now)

    def _fault_of_mean(self, mean: Vector) -> str | None:
        """Say why a mean is none of honest reports, before anything is made of it."""
        assert self._exchange is not None
        bound, method = self._exchange.bound, self._method
        assert isinstance(method, SummedMethod)
        if bound is not None and (fault := bound.fault_of_mean(mean)) is not None:
            return fault
        spec = self.plan.before.state.adapter.spec
        return method.fault_of_mean(spec, mean, self.plan.task.round)

    def _evaluate(
        self, candidate: FederationCheckpoint, exchange: Exchange, now: float
    ) -> list[Outgoing]:
        self._candidate = candidate
        self.events.contributors = exchange.contributors
        self._move(RoundEvent.SUMMED, now)
        adapter, plan = candidate.state.adapter, self.plan
        if not np.isfinite(adapter.vector).all():  # nobody could measure it
            return self._abandon(RoundEvent.REJECTED, "the new adapter is not finite", now)
        # Who still trains would answer after that, and hold everybody up until the deadline.
        evaluators = tuple(v for v in plan.evaluators if v not in self._training.late)
        self._evaluation = FederatedEvaluation(
            evaluation_of(adapter, plan.task),
            evaluators,
            plan.evaluating,
            adapter if plan.measured else None,
        )
        return self._go_on(self._evaluation.start(now), now)

    def _evaluated(self, now: float) -> list[Outgoing]:
        found = self._evaluation
        assert found is not None
        self._lose(found.lost)
        verdict = self._verdict(found)
        if not verdict.accepted:
            return self._abandon(RoundEvent.REJECTED, verdict.reason, now)
        self._move(RoundEvent.ACCEPTED, now)
        after = replace(
            self._candidate,
            losses=dict(sorted(found.losses.items())),
            personal=dict(sorted(found.personal.items())),
            evaluation=found.evaluation,
            best=verdict.best,
        )
        self.outcome = Outcome(True, verdict.reason, after)
        return []

    def _verdict(self, found: FederatedEvaluation) -> Acceptance:
        plan, before = self.plan, self.plan.before
        standing, losses = before.losses, found.losses
        if plan.task.settings.personal == "local-B":
            # The adapter alone is the base model, and whoever has no B of its own measures nothing.
            standing, losses = with_own(standing, before.personal), found.personal
        best = before.best or HeldOutLosses(standing, before.evaluation)
        claimed = {**losses, **dict.fromkeys(found.diverged, math.inf)}
        candidate = HeldOutLosses(claimed, found.evaluation)
        self.events.misfits = misfits(best, candidate)
        return judge(best, candidate, plan.tolerance, plan.unheard)

    def _abandon(self, event: RoundEvent, reason: str, now: float) -> list[Outgoing]:
        self._move(event, now)
        after = replace(self.plan.before, round=self.plan.task.round)
        self.outcome = Outcome(False, reason, after)
        return []

    def _lose(self, volunteers: Mapping[str, str]) -> None:
        """Note why volunteers are out, of whom nothing is known yet."""
        for volunteer, reason in volunteers.items():
            if volunteer not in self.events.refused:
                self.events.lost.setdefault(volunteer, reason)

    def _move(self, event: RoundEvent, now: float) -> None:
        if (self.phase, event) not in TRANSITIONS:
            raise LocalProtocolError(f"round: {event.value} while {self.phase.value}")
        self.phase = TRANSITIONS[self.phase, event]
        self.events.phase_started[self.phase] = now
