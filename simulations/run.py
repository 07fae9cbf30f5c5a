"""One simulated run from start to end, and all it leaves in its folder."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path

from nomoat.lora.model.adapter_folder import save_folder
from nomoat.server.rounds.watching import Watcher
from nomoat.simulations import baselines
from nomoat.simulations.engine import Ground, federate, prepared
from nomoat.simulations.pocket import POCKET
from nomoat.simulations.report import page, plots, samples
from nomoat.simulations.report.results import Result
from nomoat.simulations.run_folder import RunFolder, write_text
from nomoat.simulations.scenario import Scenario


@dataclass(frozen=True)
class Machine:
    """What of this machine a run uses. started: monotonic seconds when the program began."""

    workers: int | None
    pocket_cache: Path
    started: float


def simulate(scenario: Scenario, folder: RunFolder, machine: Machine, watcher: Watcher) -> Result:
    """Run or finish the federation of `scenario`; writes everything but the page's pictures last.

    What was killed goes on from its last ended round and ends with the same adapter.
    """
    try:
        return _simulate(scenario, folder, machine, watcher)
    except Exception:
        folder.forget()
        raise


def _simulate(scenario: Scenario, folder: RunFolder, machine: Machine, watcher: Watcher) -> Result:
    with (
        folder.occupied(),
        prepared(scenario, machine.workers, folder.shards, machine.pocket_cache) as ground,
    ):
        folder.bind(ground.initial.spec, inputs_digest(ground))
        adapter = federate(scenario, ground, folder, watcher, folder.volunteers).state.adapter
        measured = baselines.measure(scenario, ground) if scenario.baselines else None
        result = Result(
            scenario,
            ground.population,
            adapter,
            folder.records(),
            measured,
            samples.take(ground, adapter),
            time.monotonic() - machine.started,
            ground.pool.busy_seconds(),
        )
        base = "nomoat pocket model" if scenario.model == POCKET else ground.model
        save_folder(adapter, base, folder.adapter, page.card(result), ground.base_hash)
    folder.write_summary(result.summary())
    plots.save_png(plots.loss_curve(result), folder.curve)
    write_text(folder.report, page.page(result, folder.config.read_text("utf-8")))
    return result


def inputs_digest(ground: Ground) -> bytes:
    """SHA-256 over base model and everyone's rows: what a resumed run must find again."""
    hashed = hashlib.sha256(ground.base_hash)
    for member in ground.population.members:
        hashed.update(hashlib.sha256(member.name.encode()).digest())
        for shard in (member.train, member.held_out):
            hashed.update(hashlib.sha256(shard.read_bytes()).digest())
    return hashed.digest()
