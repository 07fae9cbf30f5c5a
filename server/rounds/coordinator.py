"""The coordinator as a Flower ServerApp: one round after the other, over whatever Grid it is given.

The same code runs a simulation (in-process grid) and a deployment (the fleet of volunteers).
Decisions are machines/round.py's, messages driver.py's.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from nomoat.aggregation import methods
from nomoat.aggregation.protocol.adapter import Adapter, as_bytes
from nomoat.aggregation.protocol.messages import AdapterShape, TrainTask
from nomoat.aggregation.sums.parallel import Run
from nomoat.server.rounds.cohort import round_seed
from nomoat.server.rounds.driver import Driver
from nomoat.server.rounds.exchanges import Exchanges
from nomoat.server.rounds.federation import Federation, FederationCheckpoint
from nomoat.server.rounds.learning_rate import learning_rate
from nomoat.server.rounds.machines.evidence import RoundEvidence
from nomoat.server.rounds.machines.federated_evaluation import FederatedEvaluation, evaluation_of
from nomoat.server.rounds.machines.patience import Waiting
from nomoat.server.rounds.machines.round import Round
from nomoat.server.rounds.machines.round_plan import RoundPlan
from nomoat.server.rounds.norms.learned_bound import BoundLearner, Train
from nomoat.server.rounds.ports import Clock, Fleet
from nomoat.server.rounds.receipts import UpdateDigests
from nomoat.server.rounds.recording import (
    not_taken,
    record_of_leap,
    record_of_round,
    record_of_start,
)
from nomoat.server.rounds.records import Journal, Overruled, RoundRecord
from nomoat.server.rounds.suspicion.asking import asked_of
from nomoat.server.rounds.suspicion.claims import unheard
from nomoat.server.rounds.watching import TrafficMeter, Watcher

Measure = Callable[[Adapter], Future[float]]


def random_session(_round: int, _exchange: int) -> bytes:
    """32 bytes that nobody can foresee."""
    return secrets.token_bytes(32)


@dataclass(frozen=True)
class Coordinator:
    """Runs the rounds of a federation.

    initial: the adapter of round 0. measure: an adapter's loss on the community's own rows. credit:
    told of every round's updates that are in the sum. conduct: told what every round showed of its
    participants; gives those who are held from now on, with the reason. session_id: (round,
    exchange) → 32 bytes. sums: how a sum is worked on. standing: digest of the signed end
    of the last round, empty where none is signed. back_off_s: seconds to let pass after so
    many abandoned rounds in a row, since what stopped one round mostly stops the next. train: a
    training on the community's own rows, by whose size the bound on updates is learned. revise:
    told where the federation stands after a committed round; gives where it goes on from. ordered:
    the same, of every round that is about to begin, and of the end: what a person has decided.
    """

    federation: Federation
    initial: Adapter
    journal: Journal
    watcher: Watcher
    fleet: Fleet = field(default_factory=Fleet)
    clock: Clock = field(default_factory=Clock)
    measure: Measure | None = None
    train: Train | None = None
    credit: Callable[[int, Mapping[str, UpdateDigests]], None] = lambda _number, _digests: None
    conduct: Callable[[int, RoundEvidence], Mapping[str, str]] = lambda _number, _evidence: {}
    session_id: Callable[[int, int], bytes] = random_session
    sums: Run = map
    standing: Callable[[], bytes] = bytes
    back_off_s: Callable[[int], float] = lambda _abandoned: 0.0
    revise: Callable[[FederationCheckpoint], FederationCheckpoint] = lambda checkpoint: checkpoint
    ordered: Callable[[FederationCheckpoint], FederationCheckpoint] = lambda checkpoint: checkpoint

    def run(self, grid: Grid) -> FederationCheckpoint:
        """Run the rounds that are left; returns where the federation stands."""
        driver = Driver(grid, self.fleet, self.clock, self.watcher, self.measure)
        bounds = BoundLearner(self.train, self.federation.norm_bound)
        meter = TrafficMeter(self.fleet.meter)
        checkpoint = self.journal.last()
        if checkpoint is None:
            self.fleet.before_round(grid, 0)
            checkpoint = self._measure_initial(driver, meter)
        abandoned = spent = 0  # rounds in a row
        while checkpoint.counted < self.federation.rounds:
            if abandoned:
                self.clock.pause(self.back_off_s(abandoned))
            self.fleet.before_round(grid, checkpoint.round + 1)
            checkpoint = self.ordered(checkpoint)
            checkpoint, record = self._round(driver, meter, checkpoint, bounds)
            abandoned = 0 if record.committed else abandoned + 1
            spent = spent + 1 if record.spent else 0
            checkpoint = self.revise(checkpoint) if record.committed else checkpoint
            if (leap := record_of_leap(checkpoint.round, spent)) is not None:
                checkpoint = self._end(leap, checkpoint.passing(leap.round))
        return self.ordered(checkpoint)

    @property
    def _method(self) -> methods.AnyMethod:
        return methods.get(self.federation.method)

    @property
    def _most_sums(self) -> int:
        """The most sums a round may have: one, unless each can be told from its mean."""
        federation = self.federation
        bounded = federation.norm_bound is not None or self.train is not None
        told = federation.secure and bounded and not federation.noise_multiplier
        return federation.sessions if told and self._method.traits.exchanges == 1 else 1

    def _measure_initial(self, driver: Driver, meter: TrafficMeter) -> FederationCheckpoint:
        """Round 0: everyone's held-out loss of the adapter nobody has trained yet."""
        started = self.clock.now()
        state = self._method.begin(self.initial)
        online = tuple(sorted(self.fleet.volunteers(driver.grid)))
        task = evaluation_of(state.adapter, self._task(1, FederationCheckpoint(0, state, {})), 0)
        own = self.initial if self.measure else None
        waiting = Waiting(self.federation.evaluate_deadline_s, self.federation.patience)
        found = FederatedEvaluation(task, online, waiting, own)
        carried = driver.drive(found, 0)
        losses = dict(sorted(found.losses.items()))
        start = FederationCheckpoint(0, state, losses, evaluation=found.evaluation)
        bytes_carried = meter.since_last(carried.traffic)
        seconds = self.clock.now() - started
        return self._end(record_of_start(start, online, found, bytes_carried, seconds), start)

    def _round(
        self,
        driver: Driver,
        meter: TrafficMeter,
        before: FederationCheckpoint,
        bounds: BoundLearner,
    ) -> tuple[FederationCheckpoint, RoundRecord]:
        """Run one round: where the federation stands after it, and its record."""
        task = self._task(before.round + 1, before)
        plan = self._plan(driver, task, before)
        exchanges = Exchanges(
            self.federation,
            self._method,
            self.fleet.roster,
            self.session_id,
            self.sums,
            random_session,
            self.standing(),
            plan.sums,
            plan.suspected,
        )
        adapter = before.state.adapter
        bound = bounds.begin(task, adapter, self._method)
        opener = exchanges.of_round(task, adapter, bound)
        machine = Round(plan, self._method, opener, self.sums)
        carried = driver.drive(machine, task.round)
        assert machine.outcome is not None
        tokens = {name: ready.tokens for name, ready in machine.events.ready.items()}
        self.credit(task.round, carried.updates.earned(tokens, machine.events.contributors))
        held = self.conduct(task.round, self._evidence(driver, machine))
        record = record_of_round(machine, self.federation, meter.since_last(carried.traffic))
        record = replace(record, held=dict(held))
        after = machine.outcome.after
        if self.federation.spares and not record.summed:
            after = before if record.reusable else before.passing(record.round)
        try:
            return self._end(record, after), record
        except Overruled as decided:
            record = not_taken(record, before, str(decided))
            return self._end(record, replace(before, round=record.round)), record

    def _evidence(self, driver: Driver, machine: Round) -> RoundEvidence:
        """Return what a round has shown; whoever is not online is not silent, but away."""
        events = machine.events
        given_up = driver.stragglers.give_up(self.clock.now())
        self.fleet.withdraw(tuple(given_up))
        silent = {*given_up.values()}.union(*(one.silent for one in events.sessions))
        silent &= self.fleet.volunteers(driver.grid).keys()
        return RoundEvidence(
            tuple(events.sessions), frozenset(silent), frozenset(events.ready.keys() - silent)
        )

    def _plan(self, driver: Driver, task: TrainTask, before: FederationCheckpoint) -> RoundPlan:
        federation, stragglers = self.federation, driver.stragglers
        online = set(self.fleet.volunteers(driver.grid))
        if len(free := online - stragglers.names) >= federation.min_reports:
            online = free
        patience = federation.patience
        patience = patience and replace(patience, usual=dict(stragglers.usual))
        seed = round_seed(federation.seed, "cohort", task.round)
        history = tuple(self.journal.history())
        adapter = before.state.adapter.digest.hex()
        asked = asked_of(history, adapter, frozenset(online), federation, self._most_sums, seed)
        return RoundPlan(
            task,
            asked.cohort,
            asked.evaluators,
            federation.min_reports,
            before,
            federation.tolerance,
            federation.train_deadline_s,
            federation.evaluate_deadline_s,
            patience,
            optimizer=federation.optimizer,
            measured=self.measure is not None,
            suspected=asked.suspected,
            unheard=unheard(history),
            sums=asked.sums,
        )

    def _task(self, number: int, before: FederationCheckpoint) -> TrainTask:
        federation, state = self.federation, before.state
        factors = self._method.factors(number)
        peak = federation.training.learning_rate
        settings = replace(
            federation.training,
            learning_rate=learning_rate(
                federation.schedule, peak, number - before.spared, federation.rounds
            ),
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

    def _end(self, record: RoundRecord, checkpoint: FederationCheckpoint) -> FederationCheckpoint:
        self.journal.write(record, checkpoint)
        self.watcher.ended(record)
        return checkpoint


def coordinator_app(
    coordinator: Coordinator, ended: Callable[[FederationCheckpoint], None]
) -> ServerApp:
    """The ServerApp that runs `coordinator` on whatever Grid it is given.

    ended: told where the federation stands after the last round.
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        ended(coordinator.run(grid))

    return app
