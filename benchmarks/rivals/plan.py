"""One federation written down for every rival: the same rows, settings and order of rows.

    python -m rivals.plan FOLDER SETTINGS-AS-JSON

prepares it with nomoat's own code, in a process of its own, and writes FOLDER/plan.json.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from nomoat.simulations.scenario import Scenario

PLAN_VARIABLE = "NOMOAT_BENCHMARK_PLAN"


@dataclass(frozen=True, slots=True)
class Volunteer:
    """A volunteer's rows, as JSON lines of chat messages."""

    name: str
    train: str
    held_out: str


@dataclass(frozen=True, slots=True)
class Plan:
    """A federation. initial: .npy of the first adapter (d,) in nomoat's order of factors.

    seeds[round − 1][i]: 32 bytes as hex that order the rows of volunteer i in a round.
    """

    model: str
    initial: str
    workers: int
    rounds: int
    local_steps: int
    batch_size: int
    seq_len: int
    lr: float
    rank: int
    alpha: float
    seed: int
    volunteers: tuple[Volunteer, ...]
    seeds: tuple[tuple[str, ...], ...]

    @classmethod
    def read(cls) -> Plan:
        """The plan that the environment names."""
        found = json.loads(Path(os.environ[PLAN_VARIABLE]).read_text("utf-8"))
        found["volunteers"] = tuple(Volunteer(**v) for v in found["volunteers"])
        found["seeds"] = tuple(tuple(row) for row in found["seeds"])
        return cls(**found)


def prepare(folder: Path, settings: dict[str, object], workers: int) -> Plan:
    """The plan of the federation that `nomoat simulate` runs with these settings."""
    import platformdirs

    from nomoat.simulations.preparation import prepared
    from nomoat.simulations.scenario import resolve

    scenario = resolve(None, settings)
    cache = Path(platformdirs.user_cache_dir("nomoat")) / "pocket"
    shards = folder / "shards"
    shards.mkdir(parents=True)
    with prepared(scenario, 1, shards, cache) as ground:
        np.save(folder / "initial.npy", ground.initial.vector)
        members = ground.population.members
        model = ground.model
    return Plan(
        model=model,
        initial=str(folder / "initial.npy"),
        workers=workers,
        rounds=scenario.rounds,
        local_steps=scenario.local_steps,
        batch_size=scenario.batch_size,
        seq_len=ground.scenario.seq_len,
        lr=scenario.chosen.train_settings().learning_rate,
        rank=scenario.rank,
        alpha=scenario.alpha,
        seed=scenario.seed,
        volunteers=tuple(Volunteer(m.name, str(m.train), str(m.held_out)) for m in members),
        seeds=_seeds(scenario, [member.name for member in members]),
    )


def _seeds(scenario: Scenario, names: list[str]) -> tuple[tuple[str, ...], ...]:
    """The seeds volunteers draw from in `nomoat simulate`: same batches, so the same losses."""
    from nomoat.simulations.seeded_community import SeededCommunity

    community = SeededCommunity.of(scenario, names)
    rounds = range(1, scenario.rounds + 1)
    return tuple(tuple(community.training_seed(n, r).hex() for n in names) for r in rounds)


def main() -> None:
    """Write the plan of the federation given on the command line."""
    folder, options = Path(sys.argv[1]), json.loads(sys.argv[2])
    workers = options.pop("workers")
    plan = prepare(folder, options, workers)
    (folder / "plan.json").write_text(json.dumps(asdict(plan)), "utf-8")


if __name__ == "__main__":
    main()
