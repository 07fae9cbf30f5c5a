"""One simulated run from start to end, and all it leaves in its folder."""

from __future__ import annotations

import hashlib
import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path

from nomoat.aggregation.errors import NomoatError
from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.lora.model.adapter_folder import save_folder
from nomoat.lora.model.bases import pocket
from nomoat.server.rounds.watching import Watcher
from nomoat.simulations import baselines
from nomoat.simulations.pocket import POCKET
from nomoat.simulations.preparation import PreparedFederation, prepared
from nomoat.simulations.report import page, plots, samples
from nomoat.simulations.report.results import Result, Sample
from nomoat.simulations.run_folder import RunFolder, write_text
from nomoat.simulations.scenario import Scenario

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunResources:
    """This machine as a run uses it. started: monotonic seconds when the program began.

    together: volunteers trained at once, at most; None: as suits it.
    """

    workers: int | None
    pocket_cache: Path
    started: float
    together: int | None = None


def simulate(
    scenario: Scenario, folder: RunFolder, machine: RunResources, watcher: Watcher
) -> Result:
    """Run or finish the federation of `scenario`; writes everything but the page's pictures last.

    What was killed goes on from its last ended round and ends with the same adapter.
    """
    try:
        return _simulate(scenario, folder, machine, watcher)
    except Exception:
        folder.forget()
        raise


def _simulate(
    scenario: Scenario, folder: RunFolder, machine: RunResources, watcher: Watcher
) -> Result:
    with (
        folder.occupied(),
        prepared(
            scenario, machine.workers, folder.shards, machine.pocket_cache, machine.together
        ) as ground,
    ):
        from nomoat.simulations.engine import federate  # imports Flower: `prepared` has by now

        scenario = ground.scenario
        folder.settle(scenario)
        folder.bind(ground.initial.spec, inputs_digest(ground))
        adapter = federate(scenario, ground, folder, watcher, folder.volunteers).state.adapter
        result = _result(scenario, ground, adapter, folder, machine)
        if result.committed:  # else there is no adapter to tell of
            base = pocket.EARLIER_NAME if scenario.model == POCKET else ground.model
            save_folder(adapter, base, folder.adapter, page.card(result), ground.base_hash)
    folder.write_summary(result.summary())
    return _drawn(result, folder) if result.committed else result


def _result(
    scenario: Scenario,
    ground: PreparedFederation,
    adapter: Adapter,
    folder: RunFolder,
    machine: RunResources,
) -> Result:
    measured = baselines.measure(scenario, ground) if scenario.baselines else None
    taken, undrawn = _samples(ground, adapter)
    return Result(
        scenario,
        ground.population,
        adapter,
        folder.records(),
        measured,
        taken,
        time.monotonic() - machine.started,
        ground.pool.busy_seconds(),
        ground.notes,
        undrawn,
        ground.warnings,
    )


def _samples(ground: PreparedFederation, adapter: Adapter) -> tuple[tuple[Sample, ...], str]:
    """The report's samples, or none and why: a model that cannot write has learnt all the same."""
    try:
        return samples.take(ground, adapter), ""
    except NomoatError as problem:
        return (), f"the report has no samples: {problem}"


def _drawn(result: Result, folder: RunFolder) -> Result:
    """Draw the report last, when all that the run found is safe; whatever fails is one line."""
    try:
        plots.save_png(plots.loss_curve(result), folder.curve)
        write_text(folder.report, page.page(result, folder.config.read_text("utf-8")))
    except Exception as problem:
        log.debug("the report could not be drawn", exc_info=problem)
        why = " ".join(str(problem).split())[:160] or type(problem).__name__
        return replace(result, undrawn=f"the report could not be drawn: {why}")
    return result


def inputs_digest(ground: PreparedFederation) -> bytes:
    """SHA-256 over base model and everyone's rows: what a resumed run must find again."""
    hashed = hashlib.sha256(ground.base_hash)
    if ground.population.public is not None:
        hashed.update(hashlib.sha256(ground.population.public.read_bytes()).digest())
    for member in ground.population.members:
        hashed.update(hashlib.sha256(member.name.encode()).digest())
        for shard in (member.train, member.held_out):
            hashed.update(hashlib.sha256(shard.read_bytes()).digest())
    return hashed.digest()
