"""One round as a machine without I/O: messages and time in, messages and an outcome out.

announce → train → ready → aggregate (one or more exchanges) → evaluate → commit | abandon.
A volunteer that breaks the protocol is named and left out; the round goes on without it. Too few
valid reports, or an adapter that is not accepted, abandon the round and leave the old adapter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from nomoat.aggregation import methods
from nomoat.aggregation.errors import LocalProtocolError, RemoteProtocolError
from nomoat.aggregation.methods import AnyMethod, server_optimizer
from nomoat.aggregation.methods.base import MethodState, PlaintextMethod
from nomoat.aggregation.methods.server_optimizer import OptimizerState, ServerOptimizer
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.adapter import Adapter, Vector, as_bytes
from nomoat.aggregation.protocol.messages import (
    AdapterShape,
    Decline,
    EvaluateTask,
    Ready,
    TrainTask,
)
from nomoat.aggregation.sums.parallel import Run
from nomoat.server.rounds.acceptance import Acceptance, judge
from nomoat.server.rounds.conversation import Exchange, Outgoing
from nomoat.server.rounds.federated_evaluation import FederatedEvaluation
from nomoat.server.rounds.records import with_own


class RoundPhase(Enum):
    """Where a round stands."""

    NEW = "new"
    TRAINING = "training"
    AGGREGATING = "aggregating"
    EVALUATING = "evaluating"
    COMMITTED = "committed"
    ABANDONED = "abandoned"


class RoundEvent(Enum):
    """What moves a round on."""

    STARTED = "started"
    ENOUGH_READY = "enough ready"
    TOO_FEW = "too few"
    SUMMED = "summed"
    ACCEPTED = "accepted"
    REJECTED = "rejected"


TRANSITIONS: dict[tuple[RoundPhase, RoundEvent], RoundPhase] = {
    (RoundPhase.NEW, RoundEvent.STARTED): RoundPhase.TRAINING,
    (RoundPhase.TRAINING, RoundEvent.ENOUGH_READY): RoundPhase.AGGREGATING,
    (RoundPhase.TRAINING, RoundEvent.TOO_FEW): RoundPhase.ABANDONED,
    (RoundPhase.AGGREGATING, RoundEvent.TOO_FEW): RoundPhase.ABANDONED,
    (RoundPhase.AGGREGATING, RoundEvent.SUMMED): RoundPhase.EVALUATING,
    (RoundPhase.EVALUATING, RoundEvent.ACCEPTED): RoundPhase.COMMITTED,
    (RoundPhase.EVALUATING, RoundEvent.REJECTED): RoundPhase.ABANDONED,
}


@dataclass(frozen=True)
class RoundPlan:
    """What is fixed before a round starts. Deadlines are seconds per phase."""

    task: TrainTask
    cohort: tuple[str, ...]
    evaluators: tuple[str, ...]
    min_reports: int
    previous_losses: dict[str, float]
    tolerance: float
    train_deadline_s: float = math.inf
    evaluate_deadline_s: float = math.inf
    optimizer: ServerOptimizer = field(default_factory=ServerOptimizer)
    moments: OptimizerState = field(default_factory=OptimizerState)  # as the round before left them
    measured: bool = False  # the coordinator measures the candidate, too (`measured`)
    previous_evaluation: float | None = None
    previous_personal: dict[str, float] = field(default_factory=dict)


# (volunteer → rank it trained, number of the exchange, reply to the one before) → the exchange
OpenExchange: TypeAlias = Callable[[Mapping[str, int], int, bytes], Exchange]


@dataclass
class Events:
    """What happened in a round, for its record: volunteer → what."""

    ready: dict[str, Ready] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    contributors: tuple[str, ...] = ()
    phase_started: dict[RoundPhase, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """How a round ended: the state to go on from, its held-out losses, and why.

    personal: losses with what each volunteer keeps to itself, of those who keep something; none
    if it was abandoned.
    """

    committed: bool
    state: MethodState
    losses: dict[str, float]
    reason: str
    moments: OptimizerState = field(default_factory=OptimizerState)
    personal: dict[str, float] = field(default_factory=dict)
    evaluation: float | None = None  # on the community's own evaluation split


class Round:
    """One round of `method` from `state`, over the volunteers of `plan`.

    run: how the layers of a sum are worked on.
    """

    def __init__(
        self,
        plan: RoundPlan,
        method: AnyMethod,
        state: MethodState,
        open_exchange: OpenExchange,
        run: Run = map,
    ) -> None:
        self.plan = plan
        self.phase = RoundPhase.NEW
        self.events = Events()
        self.outcome: Outcome | None = None
        self._method = method
        self._state = state
        self._open_exchange = open_exchange
        self._run = run
        self._exchange_number = 0
        self._asked: tuple[str, ...] = ()  # whom the present exchange asks
        self._reply: Vector | None = None  # to the exchange before
        self._inner: Exchange | FederatedEvaluation | None = (
            None  # the conversation of the present phase
        )
        self._candidate = state
        self._moments = plan.moments
        self._training: set[str] = set()
        self._still_training: frozenset[str] = frozenset()  # when the deadline came
        self._train_deadline = math.inf
        self._unmeasured = plan.measured
        self._evaluation: float | None = None

    @property
    def done(self) -> bool:
        """The round has its outcome."""
        return self.outcome is not None

    @property
    def next_deadline(self) -> float:
        """When `wake` has something to do, on the caller's clock."""
        if self._inner is not None:
            return self._inner.next_deadline
        return self._train_deadline if self.phase is RoundPhase.TRAINING else math.inf

    @property
    def to_measure(self) -> Adapter | None:
        """The candidate, while the round waits for the coordinator's own measurement of it."""
        waits = self.phase is RoundPhase.EVALUATING and self._unmeasured
        return self._candidate.adapter if waits else None

    def measured(self, loss: float | None, now: float) -> list[Outgoing]:
        """Take the candidate's loss on the evaluation split; None if it could not be measured."""
        self._evaluation, self._unmeasured = loss, False
        return self._go_on([], now)

    def start(self, now: float) -> list[Outgoing]:
        """Announce the round to its cohort."""
        self._move(RoundEvent.STARTED, now)
        self._train_deadline = now + self.plan.train_deadline_s
        self._training = set(self.plan.cohort)
        packet = wire.encode(self.plan.task)
        outgoing = [Outgoing(name, packet) for name in self.plan.cohort]
        return outgoing + self._training_done(now)

    def receive(self, volunteer: str, packet: wire.Packet, now: float) -> list[Outgoing]:
        """Take one answer; whoever breaks the protocol is refused by name and left out."""
        try:
            if self.phase is RoundPhase.TRAINING:
                self._take_ready(volunteer, packet)
                return self._training_done(now)
            if self._inner is not None:
                return self._go_on(self._inner.receive(volunteer, packet, now), now)
        except RemoteProtocolError as problem:
            return self.refuse(volunteer, problem.reason, now)
        return []

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
        if self._inner is not None:
            return self._go_on(self._inner.wake(now), now)
        if self.phase is RoundPhase.TRAINING and now >= self._train_deadline:
            for name in sorted(self._training):
                self.events.lost.setdefault(name, "too late to train")
            self._still_training = frozenset(self._training)
            self._training.clear()
            return self._training_done(now)
        return []

    def _take_ready(self, volunteer: str, packet: wire.Packet) -> None:
        if volunteer not in self._training:
            return
        if wire.peek_kind(packet, volunteer) == wire.kind_of(Decline):
            self.events.lost[volunteer] = wire.decode(packet, Decline, volunteer).reason
        else:
            ready = wire.decode(packet, Ready, volunteer)
            if ready.round != self.plan.task.round:
                raise RemoteProtocolError(volunteer, "§4", f"is ready for round {ready.round}")
            self._check_rank(volunteer, ready.rank)
            self.events.ready[volunteer] = ready
        self._training.discard(volunteer)

    def _check_rank(self, volunteer: str, rank: int) -> None:
        most = self.plan.task.trainable_rank
        least = 1 if self._method.traits.mixed_ranks else most
        if least <= rank <= most:
            return
        reason = f"trained rank {rank}, not {least}{f' to {most}' if least < most else ''}"
        if 1 <= rank < least:
            can = ", ".join(methods.able(mixed_ranks=True, summable=self._method.traits.summable))
            reason += f": {self._method.name} needs equal ranks; {can} can mix them"
        raise RemoteProtocolError(volunteer, "§4", reason)

    def _without(self, volunteer: str, reason: str, now: float) -> list[Outgoing]:
        if self.phase is RoundPhase.TRAINING:
            self._training.discard(volunteer)
            return self._training_done(now)
        if self._inner is not None:
            return self._go_on(self._inner.leave(volunteer, reason, now), now)
        return []

    def _training_done(self, now: float) -> list[Outgoing]:
        if self._training:
            return []
        found = len(self.events.ready)
        if found < self.plan.min_reports:
            return self._abandon(
                RoundEvent.TOO_FEW, f"{found} of {self.plan.min_reports} ready", now
            )
        self._move(RoundEvent.ENOUGH_READY, now)
        return self._next_exchange(tuple(sorted(self.events.ready)), b"", now)

    def _next_exchange(self, cohort: tuple[str, ...], reply: bytes, now: float) -> list[Outgoing]:
        self._exchange_number += 1
        self._asked = cohort
        ranks = {name: self.events.ready[name].rank for name in cohort}
        self._inner = self._open_exchange(ranks, self._exchange_number, reply)
        return self._go_on(self._inner.start(now), now)

    def _go_on(self, outgoing: list[Outgoing], now: float) -> list[Outgoing]:
        """Pass on what the inner conversation says, and move on when it is done."""
        inner = self._inner
        assert inner is not None
        self.events.refused = {**inner.refused, **self.events.refused}
        if not inner.done:
            return outgoing
        if isinstance(inner, FederatedEvaluation):
            return outgoing + ([] if self._unmeasured else self._evaluated(inner, now))
        for volunteer in sorted(set(self._asked) - set(inner.contributors)):
            if volunteer not in self.events.refused:
                self.events.lost.setdefault(volunteer, "too late to report")
        if inner.failed is not None:
            return outgoing + self._abandon(RoundEvent.TOO_FEW, inner.failed, now)
        return outgoing + self._summed(inner, now)

    def _summed(self, exchange: Exchange, now: float) -> list[Outgoing]:
        number, method = self.plan.task.round, self._method
        if isinstance(method, PlaintextMethod):
            self._candidate = method.commit_each(self._state, exchange.uploads, number)
            return self._evaluate(exchange.contributors, now)
        assert exchange.mean is not None
        if self._exchange_number < method.traits.exchanges:
            reply = method.reply(
                self._state, exchange.mean, number, self._exchange_number, self._run
            )
            self._reply = reply
            return self._next_exchange(exchange.contributors, as_bytes(reply), now)
        before = (self._state, self.plan.moments)
        moved, self._moments = server_optimizer.move(
            method, self.plan.optimizer, before, exchange.mean, number
        )
        self._candidate = method.commit(self._state, moved, number, self._reply, self._run)
        return self._evaluate(exchange.contributors, now)

    def _evaluate(self, contributors: tuple[str, ...], now: float) -> list[Outgoing]:
        self.events.contributors = contributors
        self._move(RoundEvent.SUMMED, now)
        task = evaluation_of(self._candidate.adapter, self.plan.task)
        # Who still trains would answer after that, and hold everybody up until the deadline.
        evaluators = tuple(v for v in self.plan.evaluators if v not in self._still_training)
        self._inner = FederatedEvaluation(task, evaluators, self.plan.evaluate_deadline_s)
        return self._go_on(self._inner.start(now), now)

    def _evaluated(self, survey: FederatedEvaluation, now: float) -> list[Outgoing]:
        for volunteer, reason in survey.lost.items():
            self.events.lost.setdefault(volunteer, reason)
        verdict = self._verdict(survey)
        if not verdict.accepted:
            return self._abandon(RoundEvent.REJECTED, verdict.reason, now)
        self._move(RoundEvent.ACCEPTED, now)
        self._inner = None
        losses, personal = (dict(sorted(x.items())) for x in (survey.losses, survey.personal))
        self.outcome = Outcome(
            True,
            self._candidate,
            losses,
            verdict.reason,
            self._moments,
            personal,
            self._evaluation,
        )
        return []

    def _verdict(self, survey: FederatedEvaluation) -> Acceptance:
        plan, evaluation = self.plan, (self.plan.previous_evaluation, self._evaluation)
        before, after = plan.previous_losses, survey.losses
        if plan.task.settings.personal == "local-B":
            # The adapter alone is the base model, and whoever has no B of its own measures nothing.
            before, after = with_own(before, plan.previous_personal), survey.personal
        return judge(before, after, plan.tolerance, evaluation)

    def _abandon(self, event: RoundEvent, reason: str, now: float) -> list[Outgoing]:
        self._move(event, now)
        self._inner = None
        plan = self.plan
        self.outcome = Outcome(
            False,
            self._state,
            plan.previous_losses,
            reason,
            plan.moments,
            evaluation=plan.previous_evaluation,
        )
        return []

    def _move(self, event: RoundEvent, now: float) -> None:
        if (self.phase, event) not in TRANSITIONS:
            raise LocalProtocolError(f"round: {event.value} while {self.phase.value}")
        self.phase = TRANSITIONS[self.phase, event]
        self.events.phase_started[self.phase] = now


def evaluation_of(adapter: Adapter, task: TrainTask, number: int | None = None) -> EvaluateTask:
    """The request to measure `adapter` under the settings of `task`."""
    return EvaluateTask(
        task.round if number is None else number,
        task.base_hash,
        AdapterShape.of(adapter.spec),
        task.settings,
        as_bytes(adapter.vector),
    )
