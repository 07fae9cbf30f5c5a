"""The volunteers of a simulation: their names and the files with their rows."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nomoat.aggregation.errors import BadData, UsageError
from nomoat.lora.data.conversations import Conversation, Dropped
from nomoat.lora.data.normal_form import write_jsonl
from nomoat.lora.data.reading import read
from nomoat.server.rounds.cohort import generator
from nomoat.simulations.partition import Shards, by_field, dirichlet, iid, split
from nomoat.simulations.pocket import POCKET
from nomoat.simulations.scenario import Scenario, parse_partition

MIN_ROWS = 5  # a volunteer with fewer can neither train nor be measured
DEFAULT_VOLUNTEERS = 10


@dataclass(frozen=True)
class SimulatedVolunteer:
    """One simulated volunteer: training rows and held-out rows, each a JSON lines file."""

    name: str
    train: Path
    held_out: Path
    train_rows: int
    held_out_rows: int


@dataclass(frozen=True)
class Population:
    """All volunteers of a federation, by name, and what of the data was not used."""

    members: tuple[SimulatedVolunteer, ...]
    dropped: tuple[Dropped, ...]
    too_small: int  # volunteers left out for having fewer than MIN_ROWS rows
    everyone: Path  # all training rows in one file, for the pooled baseline
    first_held_out: tuple[Conversation, ...]  # one per volunteer, for samples


def gather(scenario: Scenario, folder: Path, pocket_cache: Path) -> Population:
    """Read the data, share it out and write one pair of files per volunteer into `folder`.

    The same scenario gives the same files. BadData if fewer than two volunteers are left.
    """
    dataset = read(_data_path(scenario, pocket_cache))
    shards = _share(scenario, dataset.conversations)
    usable = {name: rows for name, rows in shards.items() if len(rows) >= MIN_ROWS}
    if len(usable) < 2:
        raise BadData(
            f"{scenario.data}: {len(usable)} volunteers have {MIN_ROWS} rows or more; "
            "a federation needs two: use fewer volunteers or more data"
        )
    members: list[SimulatedVolunteer] = []
    everyone: list[Conversation] = []
    shown: list[Conversation] = []
    for index, (name, rows) in enumerate(sorted(usable.items())):
        rng = generator(_seed(scenario.seed, f"split {name}"))
        train, held_out = split(rows, scenario.eval_fraction, scenario.eval_rows, rng)
        member = SimulatedVolunteer(
            name,
            folder / f"{index:05d}.train.jsonl",
            folder / f"{index:05d}.held_out.jsonl",
            len(train),
            len(held_out),
        )
        write_jsonl(train, member.train)
        write_jsonl(held_out, member.held_out)
        members.append(member)
        everyone += train
        shown.append(held_out[0])
    write_jsonl(everyone, folder / "everyone.train.jsonl")
    return Population(
        tuple(members),
        dataset.dropped,
        len(shards) - len(usable),
        folder / "everyone.train.jsonl",
        tuple(shown),
    )


def _data_path(scenario: Scenario, pocket_cache: Path) -> Path:
    if scenario.data != POCKET:
        return Path(scenario.data)
    from nomoat.simulations.pocket.corpus import StandardLibraryNotFound, cached_jsonl

    try:
        return cached_jsonl(pocket_cache)
    except StandardLibraryNotFound as problem:
        raise BadData(str(problem)) from None


def _share(scenario: Scenario, rows: Sequence[Conversation]) -> Shards:
    by = scenario.by
    if scenario.data == POCKET and by is None and scenario.volunteers is None:
        by = "topic"
    if by is not None:
        return by_field(rows, by, scenario.volunteers)
    count = scenario.volunteers or DEFAULT_VOLUNTEERS
    if count > len(rows):
        raise UsageError(f"--volunteers {count}: the data has only {len(rows)} rows")
    rng = generator(_seed(scenario.seed, "partition"))
    alpha = parse_partition(scenario.partition)
    if alpha is None:
        return iid(rows, count, rng)
    return dirichlet(rows, _labels(scenario, rows), count, alpha, rng)


def _labels(scenario: Scenario, rows: Sequence[Conversation]) -> list[str]:
    label = scenario.label or ("topic" if scenario.data == POCKET else None)
    if label is None:
        return [""] * len(rows)
    if not any(label in row.fields for row in rows):
        known = ", ".join(sorted({name for row in rows[:1000] for name in row.fields})) or "none"
        raise BadData(f"no row has a field {label!r}: the fields found are {known}")
    return [row.fields.get(label, "") for row in rows]


def _seed(seed: int, label: str) -> bytes:
    return hashlib.sha256(f"nomoat simulation {seed} {label}".encode()).digest()
