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

import numpy as np

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
    weight_cap: int
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

    from nomoat.simulations.engine import prepared
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
        seq_len=scenario.seq_len,
        lr=scenario.learning_rate,
        rank=scenario.rank,
        alpha=scenario.alpha,
        weight_cap=scenario.weight_cap,
        seed=scenario.seed,
        volunteers=tuple(Volunteer(m.name, str(m.train), str(m.held_out)) for m in members),
        seeds=_seeds(scenario, [member.name for member in members]),
    )


def _seeds(scenario: object, names: list[str]) -> tuple[tuple[str, ...], ...]:
    """The seeds volunteers derive in `nomoat simulate`: same batches, so the same losses."""
    import hashlib

    from nomoat.server.rounds.cohort import round_seed
    from nomoat.simulations.engine import seed_of
    from nomoat.simulations.scenario import Scenario

    assert isinstance(scenario, Scenario)
    federation = seed_of(scenario, "federation")
    rounds = []
    for number in range(1, scenario.rounds + 1):
        label = b"nomoat volunteer\0" + number.to_bytes(4, "big")
        start = label + round_seed(federation, "train", number)
        rounds.append(tuple(hashlib.sha256(start + n.encode()).hexdigest() for n in names))
    return tuple(rounds)


def main() -> None:
    """Write the plan of the federation given on the command line."""
    folder, options = Path(sys.argv[1]), json.loads(sys.argv[2])
    workers = options.pop("workers")
    plan = prepare(folder, options, workers)
    (folder / "plan.json").write_text(json.dumps(asdict(plan)), "utf-8")


if __name__ == "__main__":
    main()
