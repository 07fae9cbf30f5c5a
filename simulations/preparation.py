"""All that a federation needs before its first round: workers, base model, first adapter, rows."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from nomoat.aggregation.errors import UsageError
from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.lora.data import template_clock
from nomoat.lora.model import left_out
from nomoat.lora.model.adapter_spec import initial_adapter
from nomoat.lora.model.files import content_hash, resolve
from nomoat.lora.workers.examining import examined
from nomoat.lora.workers.jobs import SpecJob
from nomoat.lora.workers.pool import Pool
from nomoat.simulations.measured_rows import check_dropped, usable_rows
from nomoat.simulations.pocket import MODEL_DIR, POCKET
from nomoat.simulations.population import Population, gather, read_data
from nomoat.simulations.scenario import Scenario


@dataclass(frozen=True)
class PreparedFederation:
    """Workers, the base model, the adapter of round 0, and the volunteers with their rows.

    scenario: as it was asked for, with the sequence length that its data needs. notes: sentences
    about the base model for the card: what of it carries no adapter, and the like. warnings: of
    rows that are cut.
    """

    pool: Pool
    model: str
    base_hash: bytes
    initial: Adapter
    population: Population
    scenario: Scenario
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@contextlib.contextmanager
def prepared(
    scenario: Scenario, workers: int | None, shards: Path, pocket_cache: Path
) -> Iterator[PreparedFederation]:
    """Start the workers and share out the data meanwhile; the block runs while they live."""
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
        scenario = scenario.model_copy(update={"seq_len": usable.chosen.seq_len})
        found = examined(shape)
        initial = initial_adapter(found.spec, scenario.seed_of("adapter"))
        notes = tuple(filter(None, (left_out.line(found.left_out), template_clock.line(folder))))
        ready = PreparedFederation(pool, model, base_hash, initial, population, scenario)
        yield replace(ready, notes=notes, warnings=usable.warnings())


def model_path(scenario: Scenario) -> str:
    """The folder or hub id of the base model."""
    return str(MODEL_DIR) if scenario.model == POCKET else scenario.model


def _check_size(scenario: Scenario, population: Population) -> None:
    found = len(population.members)
    if scenario.min_reports > found:
        raise UsageError(f"--min-reports {scenario.min_reports}: there are {found} volunteers")
