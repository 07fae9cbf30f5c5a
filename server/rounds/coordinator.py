"""The coordinator as a Flower ServerApp: it speaks Grid, round.py decides.

The same code runs a simulation (in-process grid) and a deployment (the fleet of volunteers).
"""

from __future__ import annotations

import itertools
import logging
import os
import secrets
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial

from flwr.app import Context, Message
from flwr.serverapp import Grid, ServerApp

from nomoat.aggregation import methods
from nomoat.aggregation.errors import NomoatError, RemoteProtocolError
from nomoat.aggregation.methods.base import MethodState, PlaintextMethod, SummedMethod
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.adapter import Adapter, as_bytes
from nomoat.aggregation.protocol.messages import (
    AdapterShape,
    ReportRequest,
    TrainSettings,
    TrainTask,
)
from nomoat.aggregation.secagg.parameters import RosterView, Terms, propose
from nomoat.aggregation.secagg.thresholds import WEAK_BELOW
from nomoat.flower.packets import packet_of, records_of, to_message
from nomoat.flower.replies import REFUSED
from nomoat.server.rounds.cohort import round_seed, select
from nomoat.server.rounds.conversation import Driven, Exchange, Outgoing
from nomoat.server.rounds.federated_evaluation import FederatedEvaluation
from nomoat.server.rounds.learning_rate import learning_rate
from nomoat.server.rounds.masked_exchange import MaskedExchange, MaskedSetup
from nomoat.server.rounds.plain_exchange import EachExchange, PlainExchange
from nomoat.server.rounds.receipts import Credit, ReceivedUpdates
from nomoat.server.rounds.records import (
    Federation,
    FederationCheckpoint,
    Journal,
    RoundProgress,
    RoundRecord,
    Traffic,
    Watcher,
    macro,
    personal_loss,
)
from nomoat.server.rounds.round import OpenExchange, Round, RoundPhase, RoundPlan, evaluation_of

log = logging.getLogger(__name__)

POLL_S = 0.005
CORES = ThreadPoolExecutor(os.cpu_count() or 1, "sum")  # numpy lets go of the interpreter lock
PHASES = 6  # of a secure-aggregation session, which share its deadline


@dataclass
class Coordinator:
    """Runs rounds over a Grid.

    volunteers: grid → {name: node id} of those who are online. clock and pause are time.monotonic
    and time.sleep; tests pass others.
    """

    federation: Federation
    journal: Journal
    watcher: Watcher
    volunteers: Callable[[Grid], Mapping[str, int]]
    initial: Adapter
    roster: Callable[[], RosterView] | None = None
    session_id: Callable[[int, int], bytes] = lambda _round, _exchange: secrets.token_bytes(32)
    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep
    before_round: Callable[[Grid, int], None] = lambda _grid, _number: None  # waits, if it must
    measure: Callable[[Adapter], Future[float]] | None = None  # on the community's own rows
    meter: Callable[[], Traffic] | None = None  # what a port has carried; None: count payload
    credit: Callable[[int, Mapping[str, Credit]], None] = lambda _number, _earned: None
    traffic: Traffic = field(default_factory=Traffic)
    metered: Traffic = field(default_factory=Traffic)
    uploads: ReceivedUpdates = field(default_factory=ReceivedUpdates)
    checkpoint: FederationCheckpoint | None = None  # where the federation stands after `run`

    @property
    def _method(self) -> methods.AnyMethod:
        return methods.get(self.federation.method)

    def run(self, grid: Grid) -> FederationCheckpoint:
        """Run the rounds that are left; returns where the federation stands."""
        checkpoint = self.journal.last()
        if checkpoint is None:
            self.before_round(grid, 0)
            checkpoint = self._measure_initial(grid)
        for number in range(checkpoint.round + 1, self.federation.rounds + 1):
            self.before_round(grid, number)
            checkpoint = self._round(grid, number, checkpoint)
        self.checkpoint = checkpoint
        return checkpoint

    def _measure_initial(self, grid: Grid) -> FederationCheckpoint:
        """Round 0: everyone's held-out loss of the adapter nobody has trained yet."""
        started = self.clock()
        self.traffic = Traffic()
        state = self._method.begin(self.initial)
        online = tuple(sorted(self.volunteers(grid)))
        task = evaluation_of(state.adapter, self._task(1, state), 0)
        survey = FederatedEvaluation(task, online, self.federation.evaluate_deadline_s)
        measuring = self.measure(self.initial) if self.measure else None
        self._drive(grid, survey, 0)
        while measuring and not measuring.done():
            self.pause(POLL_S)
        evaluation = loss_of(measuring) if measuring else None
        losses = dict(sorted(survey.losses.items()))
        carried = self._carried()
        record = RoundRecord(
            0,
            True,
            "the base model",
            online,
            dropped=survey.lost,
            refused=survey.refused,
            loss=macro(losses),
            losses=losses,
            evaluation=evaluation,
            bytes_up=carried.up,
            bytes_down=carried.down,
            seconds={"evaluating": self.clock() - started},
            adapter=state.adapter.digest.hex(),
        )
        return self._end(record, FederationCheckpoint(0, state, losses, evaluation=evaluation))

    def _round(self, grid: Grid, number: int, before: FederationCheckpoint) -> FederationCheckpoint:
        self.traffic, self.uploads = Traffic(), ReceivedUpdates()
        task = self._task(number, before.state)
        open_exchange = self._open_exchange(task, before.state)
        plan = self._plan(grid, task, before)
        machine = Round(plan, self._method, before.state, open_exchange, CORES.map)
        self._drive(grid, machine, number)
        assert machine.outcome is not None
        outcome = machine.outcome
        tokens = {name: ready.tokens for name, ready in machine.events.ready.items()}
        self.credit(number, self.uploads.earned(tokens, machine.events.contributors))
        after = FederationCheckpoint(
            number,
            outcome.state,
            outcome.losses,
            outcome.moments,
            outcome.evaluation,
            outcome.personal if outcome.committed else before.personal,
        )
        return self._end(self._record(machine, after.state.adapter), after)

    def _plan(self, grid: Grid, task: TrainTask, before: FederationCheckpoint) -> RoundPlan:
        federation = self.federation
        online = self.volunteers(grid)
        seed = round_seed(federation.seed, "cohort", task.round)
        return RoundPlan(
            task,
            select(online, federation.fraction, federation.min_reports, seed),
            tuple(sorted(online)),
            federation.min_reports,
            before.losses,
            federation.tolerance,
            federation.train_deadline_s,
            federation.evaluate_deadline_s,
            optimizer=federation.optimizer,
            moments=before.moments,
            measured=self.measure is not None,
            previous_evaluation=before.evaluation,
            previous_personal=before.personal,
        )

    def _task(self, number: int, state: MethodState) -> TrainTask:
        federation = self.federation
        factors = self._method.factors(number)
        peak = federation.training.learning_rate
        settings = replace(
            federation.training,
            learning_rate=learning_rate(federation.schedule, peak, number, federation.rounds),
            train_a=factors.a,
            train_b=factors.b,
        )
        return TrainTask(
            number,
            federation.method,
            federation.base_hash,
            AdapterShape.of(state.adapter.spec),
            state.rank,
            settings,
            round_seed(federation.seed, "train", number),
            as_bytes(state.adapter.vector),
        )

    def _open_exchange(self, task: TrainTask, state: MethodState) -> OpenExchange:
        method, federation, adapter = self._method, self.federation, state.adapter
        deadline_s = federation.aggregate_deadline_s

        def open_exchange(ranks: Mapping[str, int], number: int, reply: bytes) -> Exchange:
            request = ReportRequest(task.round, number, adapter.digest, reply)
            if isinstance(method, PlaintextMethod):
                manifests = {
                    rank: method.manifest(adapter.spec, task.round, number, rank)
                    for rank in set(ranks.values())
                }
                return EachExchange(
                    ranks, request, manifests, federation.min_reports, deadline_s, CORES.map
                )
            cohort = tuple(ranks)
            if federation.secure:
                return self._masked_exchange(cohort, (task, adapter), request, method)
            manifest = method.manifest(adapter.spec, task.round, number)
            return PlainExchange(
                cohort, request, manifest, federation.min_reports, deadline_s, CORES.map
            )

        return open_exchange

    def _masked_exchange(
        self,
        cohort: tuple[str, ...],
        about: tuple[TrainTask, Adapter],
        request: ReportRequest,
        method: SummedMethod,
    ) -> Exchange:
        task, adapter = about
        federation = self.federation
        assert self.roster is not None
        roster, number = self.roster(), request.exchange
        manifest = method.manifest(adapter.spec, task.round, number)
        terms = Terms(task.round, number, federation.base_hash, adapter.digest, manifest, roster)
        clip = federation.clip or reach(task.settings)
        offer = propose(
            self.session_id(task.round, number),
            terms,
            method.clips(adapter, task.round, number, clip),
            (federation.min_reports, max(2, len(cohort))),
        )
        deadline_s = federation.aggregate_deadline_s / PHASES
        return MaskedExchange(
            cohort, MaskedSetup(offer, manifest, roster, request.reply, deadline_s)
        )

    def _record(self, machine: Round, adapter: Adapter) -> RoundRecord:
        outcome, events = machine.outcome, machine.events
        assert outcome is not None
        ready = dict(sorted(events.ready.items()))
        carried = self._carried()
        return RoundRecord(
            machine.plan.task.round,
            outcome.committed,
            outcome.reason,
            machine.plan.cohort,
            events.contributors,
            dict(sorted(events.lost.items())),
            dict(sorted(events.refused.items())),
            macro(outcome.losses),
            outcome.losses,
            evaluation=outcome.evaluation,
            personal=outcome.personal,
            personal_loss=personal_loss(outcome.losses, outcome.personal),
            ranks={name: one.rank for name, one in ready.items()},
            learning_rate=machine.plan.task.settings.learning_rate,
            train_loss={name: one.last_loss for name, one in ready.items()},
            tokens=sum(one.tokens for one in ready.values()),
            bytes_up=carried.up,
            bytes_down=carried.down,
            seconds=phase_seconds(events.phase_started),
            session=protection(self.federation, len(events.contributors)),
            adapter=adapter.digest.hex(),
            train_seconds={name: round(one.seconds, 6) for name, one in ready.items()},
        )

    def _carried(self) -> Traffic:
        """Bytes of the round that ends: on the port since the last one ended, else payload."""
        if self.meter is None:
            return self.traffic
        before, self.metered = self.metered, self.meter()
        return Traffic(self.metered.up - before.up, self.metered.down - before.down)

    def _end(self, record: RoundRecord, checkpoint: FederationCheckpoint) -> FederationCheckpoint:
        self.journal.write(record, checkpoint)
        self.watcher.ended(record)
        return checkpoint

    def _drive(self, grid: Grid, machine: Driven, number: int) -> None:
        """Carry messages between a machine and the grid until the machine is done."""
        nodes = dict(self.volunteers(grid))
        pending: dict[str, str] = {}  # message id → volunteer
        asked = answered = 0
        outgoing = machine.start(self.clock())
        measuring: Future[float] | None = None
        send = partial(self._send, grid, nodes, pending, machine, str(number))
        while outgoing or not machine.done:
            asked += len(outgoing)
            outgoing = send(outgoing)
            for reply in grid.pull_messages(list(pending)):
                volunteer = pending.pop(reply.metadata.reply_to_message_id, None)
                if volunteer is not None:
                    outgoing += self._take(machine, volunteer, reply)
                    answered += 1
            candidate = machine.to_measure if isinstance(machine, Round) else None
            if self.measure and candidate is not None and measuring is None:
                measuring = self.measure(candidate)
            if isinstance(machine, Round) and candidate and measuring and measuring.done():
                outgoing += machine.measured(loss_of(measuring), self.clock())
            outgoing += machine.wake(self.clock())
            phase = machine.phase.value if isinstance(machine, Round) else "evaluating"
            self.watcher.progress(RoundProgress(number, phase, answered, asked))
            if not outgoing and not machine.done:
                self.pause(POLL_S)

    def _send(
        self,
        grid: Grid,
        nodes: Mapping[str, int],
        pending: dict[str, str],
        machine: Driven,
        group: str,
        outgoing: list[Outgoing],
    ) -> list[Outgoing]:
        """Push messages and note whose answers are pending; what the machine says to losses."""
        known = [item for item in outgoing if item.volunteer in nodes]
        gone = [item.volunteer for item in outgoing if item.volunteer not in nodes]
        # One packet often goes to many; cutting it up copies it, and so does naming a record by
        # its content: once is enough.
        records = {id(item.packet): records_of(item.packet) for item in known}
        messages = [
            to_message(
                wire.peek_kind(item.packet, item.volunteer),
                records[id(item.packet)],
                nodes[item.volunteer],
                group,
            )
            for item in known
        ]
        ids = list(grid.push_messages(messages)) if messages else []
        latest = {volunteer: message_id for message_id, volunteer in pending.items()}
        for item, message_id in zip(known, ids, strict=True):
            if message_id:
                # Asked something new: its answer to what it was asked before comes too late.
                pending.pop(latest.get(item.volunteer, ""), None)
                latest[item.volunteer] = message_id
                pending[message_id] = item.volunteer
                self.traffic.down += item.packet.size
            else:
                gone.append(item.volunteer)
        return [more for name in gone for more in machine.leave(name, "gone", self.clock())]

    def _take(self, machine: Driven, volunteer: str, reply: Message) -> list[Outgoing]:
        now = self.clock()
        if reply.has_error() and reply.error.code == REFUSED:
            return machine.refuse(volunteer, reply.error.reason or "its seal does not hold", now)
        if reply.has_error():
            return machine.leave(volunteer, f"no answer (code {reply.error.code})", now)
        try:
            packet = packet_of(reply, volunteer)
        except RemoteProtocolError as problem:
            return machine.refuse(volunteer, problem.reason, now)
        self.traffic.up += packet.size
        self.uploads.note(volunteer, packet)
        return machine.receive(volunteer, packet, now)


def coordinator_app(coordinator: Coordinator) -> ServerApp:
    """The ServerApp that runs `coordinator` on whatever Grid it is given."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        coordinator.run(grid)

    return app


def named_nodes(grid: Grid) -> dict[str, int]:
    """{owner name: node id} of the grid's nodes."""
    return {node.owner_name: node.node_id for node in grid.get_nodes()}


def reach(training: TrainSettings) -> float:
    """A bound on how far AdamW moves one value in a round: 2 · steps · learning rate.

    Its steps are about the learning rate each (Kingma & Ba 2015, §2.1); twice that leaves room.
    Training by epochs has no step count that is known here: 1000 steps are assumed.
    """
    steps = training.local_steps if training.local_epochs == 0 else 1000
    return 2 * steps * training.learning_rate


def protection(federation: Federation, participants: int) -> str:
    """How an aggregation over that many was protected, in the words used wherever it is shown."""
    if not federation.secure:
        return "plain"
    weak = participants < WEAK_BELOW or federation.min_reports < WEAK_BELOW
    return f"weak: {participants} participants" if weak else f"secure: {participants} participants"


def loss_of(measured: Future[float]) -> float | None:
    """What was measured, None if it could not be: the round goes by the volunteers' losses."""
    try:
        return measured.result()
    except NomoatError as problem:
        log.warning("the evaluation split was not measured: %s", problem)
        return None


def phase_seconds(started: Mapping[RoundPhase, float]) -> dict[str, float]:
    """Seconds spent in each phase, from the times they began."""
    order = sorted(started.items(), key=lambda item: item[1])
    return {
        phase.value: round(following - begun, 6)
        for (phase, begun), (_, following) in itertools.pairwise(order)
    }
