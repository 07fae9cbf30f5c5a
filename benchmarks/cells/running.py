"""Runs cells one after another on one pool of workers: the base model is loaded once for all."""

from __future__ import annotations

import itertools
import math
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cells.plan import POOLED, Cell, Setting, scenario
from nomoat.aggregation.errors import UsageError
from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.lora.model.adapter_spec import initial_adapter
from nomoat.lora.model.files import content_hash, resolve
from nomoat.lora.training.train import Trained
from nomoat.lora.workers.jobs import SpecJob, TrainJob
from nomoat.lora.workers.pool import Pool
from nomoat.server.rounds.federation import FederationCheckpoint
from nomoat.server.rounds.records import RoundRecord, macro
from nomoat.simulations.engine import federate
from nomoat.simulations.pooled_trainer import evaluate_job
from nomoat.simulations.population import gather, read_data
from nomoat.simulations.preparation import PreparedFederation, model_path
from nomoat.simulations.report.live_table import Silence
from nomoat.simulations.scenario import Scenario

Row = dict[str, Any]


class Notes:
    """A journal in memory: a cell that is cut off starts anew."""

    def __init__(self) -> None:
        self.records: list[RoundRecord] = []

    def last(self) -> FederationCheckpoint | None:
        """Nothing to go on from."""
        return None

    def history(self) -> list[RoundRecord]:
        """Everything so far."""
        return self.records

    def write(self, record: RoundRecord, checkpoint: FederationCheckpoint) -> None:
        """Keep the record."""
        self.records.append(record)


@dataclass(frozen=True)
class Reference:
    """Training jobs on everyone's rows at once.

    Two on as many rows as all volunteers together, since either may be the better optimiser: a
    volunteer's batches and everyone's steps, or a volunteer's steps and everyone's batches. And
    one with a volunteer's batches and steps.
    """

    many_steps: Future[Trained]
    large_batches: Future[Trained]
    one_volunteer: Future[Trained]


def run(
    setting: Setting, asked: Iterable[Cell], workers: int | None, pocket_cache: Path
) -> Iterator[tuple[Cell, Row]]:
    """Yield each cell's result at once; cells of one split, seed and ranks come together."""
    some = Scenario(model=setting.model, rounds=1)
    base_hash = content_hash(resolve(model_path(some)))
    with (
        tempfile.TemporaryDirectory(prefix="nomoat-methods-") as scratch,
        Pool(model_path(some), workers) as pool,
    ):
        for _, group in itertools.groupby(asked, lambda c: (c.seed, c.split, c.ranks)):
            todo = list(group)
            folder = Path(tempfile.mkdtemp(dir=scratch))
            common = scenario(setting, replace(todo[0], method=POOLED))
            shape = pool.submit(SpecJob(common.rank, common.alpha, common.targets))
            population = gather(common, read_data(common, pocket_cache), folder)
            initial = initial_adapter(shape.result().spec, common.seed_of("adapter"))
            ground = PreparedFederation(pool, setting.model, base_hash, initial, population, common)
            yield from _run_place(setting, todo, ground, folder)


def _run_place(
    setting: Setting, todo: list[Cell], ground: PreparedFederation, folder: Path
) -> Iterator[tuple[Cell, Row]]:
    # The long reference trains on one worker while the first method has the others.
    pooled = [cell for cell in todo if cell.method == POOLED]
    reference = _start_reference(scenario(setting, pooled[0]), ground) if pooled else None
    for cell in todo:
        if cell.method != POOLED:
            yield cell, _run_method(setting, cell, ground, folder / cell.method)
    if reference is not None:
        yield pooled[0], _finish_reference(scenario(setting, pooled[0]), ground, reference)


def _run_method(setting: Setting, cell: Cell, ground: PreparedFederation, kept: Path) -> Row:
    try:
        asked = scenario(setting, cell)
    except UsageError as refusal:
        return {"impossible": str(refusal)}
    notes, started = Notes(), time.perf_counter()
    federate(asked, ground, notes, Silence(), kept)
    seconds = time.perf_counter() - started
    rounds = notes.records[1:]
    reports = sum(len(record.contributors) for record in rounds)
    asked_in_all = len(rounds) * len(ground.population.members)
    return {
        "losses": [record.loss for record in notes.records],
        "committed": sum(record.committed for record in rounds),
        "volunteers": len(ground.population.members),
        "tokens": sum(record.tokens for record in rounds),
        "bytes_up": sum(record.bytes_up for record in rounds) / max(reports, 1),
        "bytes_down": sum(record.bytes_down for record in rounds) / asked_in_all,
        "aggregate_s": sum(r.seconds.get("aggregating", 0.0) for r in rounds) / len(rounds),
        "seconds": round(seconds, 3),
    }


def _start_reference(common: Scenario, ground: PreparedFederation) -> Reference:
    volunteers = len(ground.population.members)
    steps, rows = common.rounds * common.local_steps, common.batch_size
    return Reference(
        _train_pooled(common, ground, volunteers * steps, rows),
        _train_pooled(common, ground, steps, volunteers * rows),
        _train_pooled(common, ground, steps, rows),
    )


def _train_pooled(
    common: Scenario, ground: PreparedFederation, steps: int, rows: int
) -> Future[Trained]:
    settings = common.chosen.train_settings()
    settings = replace(settings, local_steps=steps, batch_size=rows, local_epochs=0)
    spec, vector = ground.initial.spec, ground.initial.vector
    seed = common.seed_of("pooled")
    return ground.pool.submit(TrainJob(ground.population.everyone, spec, vector, settings, seed))


def _finish_reference(common: Scenario, ground: PreparedFederation, reference: Reference) -> Row:
    trained = {name: future.result() for name, future in vars(reference).items()}
    losses = {name: _loss(common, ground, one) for name, one in trained.items()}
    return {
        **losses,
        "equal_tokens": min(losses["many_steps"], losses["large_batches"]),
        "volunteers": len(ground.population.members),
        "tokens": {name: one.tokens for name, one in trained.items()},
        "seconds": round(sum(one.seconds for one in trained.values()), 3),
    }


def _loss(common: Scenario, ground: PreparedFederation, trained: Trained) -> float:
    adapter = Adapter(ground.initial.spec, trained.vector)
    asked = {
        member.name: ground.pool.submit(
            evaluate_job(member, adapter, common.chosen.train_settings())
        )
        for member in ground.population.members
    }
    return macro({name: future.result().loss for name, future in asked.items()}) or math.nan
