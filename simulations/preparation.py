"""All that a federation needs before its first round: workers, base model, first adapter, rows."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from nomoat.aggregation.errors import UsageError
from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.client.machine.free_memory import free_memory
from nomoat.lora.data import template_clock
from nomoat.lora.memory.joint_plan import ONE_AT_A_TIME, JointPlan, joint_plan
from nomoat.lora.memory.prediction import TrainingShape, Weights
from nomoat.lora.model import left_out
from nomoat.lora.model.adapter_spec import initial_adapter
from nomoat.lora.model.files import config, content_hash, resolve
from nomoat.lora.model.shape import ALL_LINEAR, ModelShape
from nomoat.lora.model.usual_rate import usual_rate
from nomoat.lora.workers.cores import default_workers
from nomoat.lora.workers.examining import examined
from nomoat.lora.workers.jobs import SpecJob
from nomoat.lora.workers.pool import Pool
from nomoat.simulations.measured_rows import check_dropped, usable_rows
from nomoat.simulations.pocket import MODEL_DIR, POCKET
from nomoat.simulations.population import Population, gather, read_data
from nomoat.simulations.scenario import Scenario

ON_A_GPU: Final = 64  # volunteers in a group, at most
ON_A_CPU: Final = 8
GROUPS: Final = 4  # of a cohort, at least, on a CPU: cores that have one
SMALL_BATCH: Final = 2  # rows; on a CPU larger ones are not faster together


@dataclass(frozen=True)
class PreparedFederation:
    """Workers, the base model, the adapter of round 0, and the volunteers with their rows.

    scenario: as it was asked for, with the sequence length that its data needs. notes: sentences
    about the base model for the card: what of it carries no adapter, and the like. warnings: of
    rows that are cut. at_once: volunteers that are trained together.
    """

    pool: Pool
    model: str
    base_hash: bytes
    initial: Adapter
    population: Population
    scenario: Scenario
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    at_once: JointPlan = ONE_AT_A_TIME


@contextlib.contextmanager
def prepared(
    scenario: Scenario,
    workers: int | None,
    shards: Path,
    pocket_cache: Path,
    together: int | None = 1,
) -> Iterator[PreparedFederation]:
    """Start the workers and share out the data meanwhile; the block runs while they live.

    together: volunteers trained at once, at most; None: as suits this machine.
    """
    model = model_path(scenario)
    folder = resolve(model)
    base_hash = content_hash(folder)
    with Pool(model, workers, base_hash=base_hash) as pool:
        shape = pool.submit(
            SpecJob(scenario.rank, scenario.alpha, scenario.targets, seq_len=scenario.seq_len)
        )
        dataset = read_data(scenario, pocket_cache)
        # Flower takes a second to import: now, while the workers load.
        import nomoat.simulations.engine  # noqa: F401

        usable = usable_rows(scenario, dataset, pool, model, shards)
        population = gather(scenario, usable.dataset, shards)
        check_dropped(scenario, population, usable)
        _check_size(scenario, population)
        rate = usual_rate(config(folder))
        open_rate = scenario.learning_rate is None
        settled = {"learning_rate": rate.rate} if open_rate else {}
        scenario = scenario.model_copy(update={"seq_len": usable.chosen.seq_len, **settled})
        found = examined(shape)
        initial = initial_adapter(found.spec, scenario.seed_of("adapter"))
        said = f"learning rate {rate.rate:g}: {rate.reason}" if open_rate else ""
        parts = left_out.line(found.left_out)
        notes = tuple(filter(None, (parts, template_clock.line(folder), said)))
        ready = PreparedFederation(pool, model, base_hash, initial, population, scenario)
        at_once = _at_once(scenario, folder, len(population.members), together)
        yield replace(ready, notes=notes, warnings=usable.warnings(), at_once=at_once)


def model_path(scenario: Scenario) -> str:
    """The folder or hub id of the base model."""
    return str(MODEL_DIR) if scenario.model == POCKET else scenario.model


def _check_size(scenario: Scenario, population: Population) -> None:
    found = len(population.members)
    if scenario.min_reports > found:
        raise UsageError(f"--min-reports {scenario.min_reports}: there are {found} volunteers")


def _at_once(scenario: Scenario, folder: Path, volunteers: int, wanted: int | None) -> JointPlan:
    """The size of a group that this machine's memory takes and that makes it faster.

    wanted: at most so many, whatever is faster; 1 for one volunteer at a time. On a GPU, which
    waits for kernels to be launched, as many as fit; on a CPU only where a step is so small that
    it waits for Python, and then few enough for every core to have a group.
    """
    memory = free_memory("auto")
    on_gpu = memory.device == "cuda"
    usual = ON_A_GPU if on_gpu else _on_a_cpu(scenario, volunteers)
    most = min(volunteers, wanted or usual)
    if most < 2:
        return ONE_AT_A_TIME
    try:
        shape = ModelShape.from_config(config(folder))
    except UsageError:  # a family whose need nobody can predict: what was asked for, or none
        return JointPlan(most) if wanted else ONE_AT_A_TIME
    wish = TrainingShape(
        scenario.batch_size,
        scenario.seq_len,
        scenario.rank,
        _targets(scenario),
        weights=Weights.BF16 if on_gpu else Weights.FP32,
        autocast=on_gpu,
    )
    budget = memory.free_bytes // (1 if on_gpu else default_workers())
    return joint_plan(shape, wish, most, budget, memory.host)


def _on_a_cpu(scenario: Scenario, volunteers: int) -> int:
    small = scenario.batch_size <= SMALL_BATCH
    return min(ON_A_CPU, -(-volunteers // GROUPS)) if small else 1


def _targets(scenario: Scenario) -> tuple[str, ...]:
    return (ALL_LINEAR,) if scenario.targets == "all-linear" else tuple(scenario.targets)
