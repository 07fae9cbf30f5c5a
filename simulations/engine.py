"""Runs a whole federation on this machine: the coordinator and client of a deployment, one pool.

The parent process holds no model and imports no torch; worker processes hold one base each and do
all training and evaluation. The result does not depend on how many there are. Importing this
imports Flower, which takes a second: `prepared` does it while the workers load.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from flwr.app import Context, Message, RecordDict

from nomoat.aggregation.protocol.messages import MAX_BATCH, MAX_LOCAL_STEPS, MAX_SEQ_LEN
from nomoat.client.round.app import RequestHandler, volunteer_app
from nomoat.client.round.masked_session import MaskedSession
from nomoat.client.round.sealed_app import App, sealed
from nomoat.client.round.session import RoundSession
from nomoat.client.round.task_limits import TaskLimits
from nomoat.client.round.training_origin import TrainingOrigin, version_by_round
from nomoat.client.training.personal_state import DiskPersonalStates
from nomoat.server.community.evaluation_split import EvaluationSplit
from nomoat.server.fleet.sealed_grid import Addressee, SealedGrid
from nomoat.server.rounds.coordinator import Coordinator, coordinator_app
from nomoat.server.rounds.federation import FederationCheckpoint
from nomoat.server.rounds.ports import Fleet
from nomoat.server.rounds.records import Journal
from nomoat.server.rounds.watching import Watcher
from nomoat.simulations.adversaries.conduct import SimulatedConduct
from nomoat.simulations.adversaries.kinds import Attack, parse
from nomoat.simulations.adversaries.rows import poison
from nomoat.simulations.adversaries.updates import lying
from nomoat.simulations.failures import ExplainingJournal, FailureNotes
from nomoat.simulations.network.dropout import Dropout
from nomoat.simulations.network.gathering import TrainingGathering
from nomoat.simulations.network.in_process_grid import InProcessGrid
from nomoat.simulations.pooled_trainer import NoUpdateStore, PooledTrainer
from nomoat.simulations.preparation import PreparedFederation
from nomoat.simulations.ranks import ranks_of
from nomoat.simulations.scenario import Scenario
from nomoat.simulations.seeded_community import SeededCommunity

# A simulated machine is its researcher's own: it does all that a scenario may ask for.
LIMITS = TaskLimits(2 * MAX_LOCAL_STEPS, MAX_BATCH * MAX_SEQ_LEN, 1 << 40, max_epochs=200)


def federate(
    scenario: Scenario, ground: PreparedFederation, journal: Journal, watcher: Watcher, kept: Path
) -> FederationCheckpoint:
    """Run (or finish) the federation's rounds; returns the checkpoint after the last.

    kept: a folder for what volunteers keep to themselves between rounds.
    """
    community = SeededCommunity.of(scenario, [member.name for member in ground.population.members])
    notes = FailureNotes()
    gathering = TrainingGathering(ground.pool, ground.at_once)
    handlers = _handlers(scenario, ground, community, kept, notes, gathering)
    grid = InProcessGrid(
        all_volunteers(handlers, community, ground.base_hash),
        list(handlers),
        gathering.served,
        Dropout(scenario.seed_of("dropout"), scenario.dropout),
        gathering.unanswered,
    )
    sums = ThreadPoolExecutor(os.cpu_count() or 1, "sum")  # numpy lets go of the interpreter lock
    told = ExplainingJournal(journal, notes)
    coordinator = replace(_coordinator(scenario, ground, community, told, watcher), sums=sums.map)
    with contextlib.closing(grid), sums:
        try:
            return _run(coordinator, sealed_grid(grid, community, ground.base_hash))
        except BaseException:
            with silenced("nomoat.client.round.app"):  # each would say that its work ended
                ground.pool.close(now=True)  # else the grid waits for those who wait for it
                gathering.close()
                grid.close()
            raise


def _coordinator(
    scenario: Scenario,
    ground: PreparedFederation,
    community: SeededCommunity,
    journal: Journal,
    watcher: Watcher,
) -> Coordinator:
    split, conduct = _public_split(scenario, ground), SimulatedConduct(journal.history())
    return Coordinator(
        scenario.chosen.federation(ground.base_hash, scenario.seed_of("federation")),
        ground.initial,
        journal,
        watcher,
        Fleet(conduct.volunteers, lambda: community.roster),
        measure=split.measure if split else None,
        train=split.train if split else None,
        conduct=conduct.judge,
        session_id=community.session_id,
    )


def _public_split(scenario: Scenario, ground: PreparedFederation) -> EvaluationSplit | None:
    """The coordinator's own rows, as a community's that was made with --eval."""
    if ground.population.public is None:
        return None
    settings = scenario.chosen.training.settings("none")
    return EvaluationSplit(ground.population.public, settings, ground.pool)


def _handlers(
    scenario: Scenario,
    ground: PreparedFederation,
    community: SeededCommunity,
    kept: Path,
    notes: FailureNotes,
    gathering: TrainingGathering,
) -> dict[str, RequestHandler]:
    """Each volunteer by name: the session of a deployment, whose training the pool does."""
    members = ground.population.members
    ranks = ranks_of(scenario.ranks, len(members), scenario.rank, scenario.seed)
    liars = _liars(scenario, [member.name for member in members])
    handlers = {}
    for place, member in enumerate(members):
        kind, rows = liars.get(member.name), member
        if kind is not None:
            file = member.train.with_suffix(".poisoned.jsonl")
            rows = replace(member, train=poison(kind, member.train, file))
        masked = MaskedSession(community.membership(member.name)) if scenario.secure else None
        session = (RoundSession if kind is None else lying(kind))(
            member.name,
            ground.base_hash,
            replace(LIMITS, rank=ranks[place]),
            masking=masked,
            origin=TrainingOrigin(community.training_seeds(member.name), version_by_round),
        )
        states = DiskPersonalStates(kept / f"{place:05d}")
        trainer = PooledTrainer(rows, ground.pool, states, gathering)
        told = (notes.observer(member.name),)
        handlers[member.name] = RequestHandler(session, trainer, NoUpdateStore(), told)
    return handlers


def _liars(scenario: Scenario, names: list[str]) -> dict[str, Attack]:
    """Volunteer → how it lies."""
    if scenario.adversary is None:
        return {}
    adversary = parse(scenario.adversary)
    return dict.fromkeys(adversary.liars(names, scenario.seed_of("adversary")), adversary.kind)


def all_volunteers(
    handlers: Mapping[str, RequestHandler], community: SeededCommunity, base_hash: bytes
) -> App:
    """All volunteers as one app: a message is for the one whose node it reached, under its seal."""

    def name_of(context: Context) -> str:
        return str(context.node_config["name"])

    app = volunteer_app(lambda context: handlers[name_of(context)])
    apps = {name: sealed(app, community.parties(name, base_hash)) for name in handlers}

    def answer(message: Message, context: Context) -> Message:
        return apps[name_of(context)](message, context)

    return answer


def sealed_grid(grid: InProcessGrid, community: SeededCommunity, base_hash: bytes) -> SealedGrid:
    """The grid as a deployment's coordinator has it: signed both ways."""
    addressees = {
        node.node_id: Addressee(node.owner_name, community.keys[node.owner_name].public)
        for node in grid.get_nodes()
    }
    return SealedGrid(grid, community.signer(base_hash), addressees.get)


def _run(coordinator: Coordinator, grid: SealedGrid) -> FederationCheckpoint:
    ends: list[FederationCheckpoint] = []
    context = Context(
        run_id=grid.run.run_id, node_id=0, node_config={}, state=RecordDict(), run_config={}
    )
    coordinator_app(coordinator, ends.append)(grid, context)
    return ends[0]


@contextlib.contextmanager
def silenced(name: str) -> Iterator[None]:
    """Run the block without the named logger's messages."""
    log = logging.getLogger(name)
    log.disabled = True
    try:
        yield
    finally:
        log.disabled = False
