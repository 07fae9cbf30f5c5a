"""Runs a whole federation on this machine: the coordinator and client of a deployment, one pool.

The parent process holds no model and imports no torch; worker processes hold one base each and do
all training and evaluation. The result does not depend on how many there are.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from nomoat.aggregation.errors import UsageError
from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.aggregation.protocol.messages import MAX_BATCH, MAX_LOCAL_STEPS, MAX_SEQ_LEN
from nomoat.client.round.masked_session import MaskedSession
from nomoat.client.training.personal_state import DiskPersonalStates
from nomoat.lora.data import template_clock
from nomoat.lora.model import left_out
from nomoat.lora.model.adapter_spec import initial_adapter
from nomoat.lora.model.files import content_hash, resolve
from nomoat.lora.workers.cores import MAX_DEFAULT_WORKERS
from nomoat.lora.workers.examining import examined
from nomoat.lora.workers.jobs import SpecJob
from nomoat.lora.workers.pool import Pool
from nomoat.server.rounds import cohort
from nomoat.server.rounds.cohort import generator, round_seed
from nomoat.server.rounds.federation import FederationCheckpoint
from nomoat.server.rounds.records import Journal
from nomoat.server.rounds.watching import Watcher
from nomoat.simulations.pocket import POCKET
from nomoat.simulations.pooled_trainer import NoVault, PooledLabour
from nomoat.simulations.population import Population, gather
from nomoat.simulations.ranks import ranks_of
from nomoat.simulations.scenario import Scenario
from nomoat.simulations.seeded_community import SeededCommunity


@dataclass(frozen=True)
class Ground:
    """Everything a federation stands on: workers, base model, first adapter, and its volunteers.

    notes: sentences about the base model for the card: what of it carries no adapter, and the like.
    """

    pool: Pool
    model: str
    base_hash: bytes
    initial: Adapter
    population: Population
    notes: tuple[str, ...] = ()


def model_path(scenario: Scenario) -> str:
    """The folder or hub id of the base model."""
    if scenario.model != POCKET:
        return scenario.model
    from nomoat.simulations.pocket import MODEL_DIR

    return str(MODEL_DIR)


@contextlib.contextmanager
def prepared(
    scenario: Scenario, workers: int | None, shards: Path, pocket_cache: Path
) -> Iterator[Ground]:
    """Start the workers and share out the data meanwhile; the block runs while they live."""
    model = model_path(scenario)
    folder = resolve(model)
    base_hash = content_hash(folder)
    with Pool(model, workers) as pool:
        shape = pool.submit(
            SpecJob(scenario.rank, scenario.alpha, scenario.targets, seq_len=scenario.seq_len)
        )
        population = gather(scenario, shards, pocket_cache)
        _check_size(scenario, population)
        # Flower takes a second to import: now, while the workers load.
        import nomoat.server.rounds.coordinator
        import nomoat.simulations.in_process_grid  # noqa: F401

        found = examined(shape)
        notes = tuple(filter(None, (left_out.line(found.left_out), template_clock.line(folder))))
        initial = initial_adapter(found.spec, seed_of(scenario, "adapter"))
        yield Ground(pool, model, base_hash, initial, population, notes)


def federate(
    scenario: Scenario, ground: Ground, journal: Journal, watcher: Watcher, kept: Path
) -> FederationCheckpoint:
    """Run (or finish) the federation's rounds; where it stands after them.

    kept: a folder for what volunteers keep to themselves between rounds.
    """
    from flwr.app import Context, RecordDict

    from nomoat.client.round.app import RequestHandler, volunteer_app
    from nomoat.client.round.session import RoundSession
    from nomoat.client.round.task_limits import TaskLimits
    from nomoat.server.rounds.coordinator import Coordinator, coordinator_app
    from nomoat.server.rounds.ports import Fleet
    from nomoat.simulations.in_process_grid import InProcessGrid

    own_machine = TaskLimits(2 * MAX_LOCAL_STEPS, MAX_BATCH * MAX_SEQ_LEN, 1 << 40, max_epochs=200)
    members = ground.population.members
    community = SeededCommunity.of(scenario, [member.name for member in members])
    ranks = ranks_of(scenario.ranks, len(members), scenario.rank, scenario.seed)
    volunteers = {
        member.name: RequestHandler(
            RoundSession(
                member.name,
                ground.base_hash,
                replace(own_machine, rank=ranks[place]),
                masking=MaskedSession(community.membership(member.name))
                if scenario.secure
                else None,
                training_seed=community.training_seeds(member.name),
            ),
            PooledLabour(member, ground.pool, DiskPersonalStates(kept / f"{place:05d}")),
            NoVault(),
        )
        for place, member in enumerate(members)
    }
    grid = InProcessGrid(
        volunteer_app(lambda context: volunteers[str(context.node_config["name"])]),
        list(volunteers),
        2 * MAX_DEFAULT_WORKERS,
        Dropout(seed_of(scenario, "dropout"), scenario.dropout),
    )
    cores = ThreadPoolExecutor(os.cpu_count() or 1, "sum")
    coordinator = Coordinator(
        scenario.chosen.federation(ground.base_hash, seed_of(scenario, "federation")),
        ground.initial,
        journal,
        watcher,
        Fleet(roster=lambda: community.roster),
        session_id=community.session_id,
        sums=cores.map,
    )
    ends: list[FederationCheckpoint] = []
    context = Context(
        run_id=grid.run.run_id, node_id=0, node_config={}, state=RecordDict(), run_config={}
    )
    with contextlib.closing(grid), cores:
        try:
            coordinator_app(coordinator, ends.append)(grid, context)
        except BaseException:
            with silenced(
                "nomoat.client.round.app"
            ):  # each volunteer would say that its work ended
                ground.pool.close(now=True)  # else the grid waits for those who wait for it
                grid.close()
            raise
    return ends[-1]


@contextlib.contextmanager
def silenced(name: str) -> Iterator[None]:
    """Without the named logger's messages."""
    log = logging.getLogger(name)
    log.disabled = True
    try:
        yield
    finally:
        log.disabled = False


def _check_size(scenario: Scenario, population: Population) -> None:
    found = len(population.members)
    if scenario.min_reports > found:
        raise UsageError(f"--min-reports {scenario.min_reports}: there are {found} volunteers")


@dataclass(frozen=True)
class Dropout:
    """Each volunteer vanishes from a round with a probability, before training or after it.

    Drawn from (seed, round, volunteer), so the order of messages does not matter. Held-out losses
    are measured of everyone, to keep rounds comparable.
    """

    seed: bytes
    probability: float

    def __call__(self, volunteer: str, message_type: str, group: str) -> bool:
        """Whether this volunteer does not answer a message of this type in round `group`."""
        if self.probability == 0 or message_type.startswith("evaluate"):
            return False
        draw = generator(round_seed(self.seed, volunteer, int(group))).random(2)
        after_training = draw[1] < 0.5
        return bool(draw[0] < self.probability) and not (
            after_training and message_type == "train.local"
        )


def seed_of(scenario: Scenario, label: str) -> bytes:
    """32 bytes for one purpose, from the scenario's seed."""
    return cohort.seed_of(scenario.seed, label)
