"""The volunteers of a simulation: their names and the files with their rows."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nomoat.aggregation.errors import BadData, UsageError
from nomoat.lora.data.conversations import Conversation, Dataset, Dropped, Tally, merged
from nomoat.lora.data.files.listing import Unread
from nomoat.lora.data.normal_form import write_jsonl
from nomoat.lora.data.reading import read
from nomoat.lora.data.row_counts import in_words
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
    """All volunteers of a federation, by name, and what became of every row that was read.

    A row is trained on, held out, or counted: in `dropped`, or in `set_aside` if a setting asks for
    fewer than there are. ignored, unread: as in Dataset.
    """

    members: tuple[SimulatedVolunteer, ...]
    dropped: tuple[Dropped, ...]
    too_small: int  # volunteers left out for having fewer than MIN_ROWS rows
    everyone: Path  # all training rows in one file, for the pooled baseline
    first_held_out: tuple[Conversation, ...]  # one per volunteer, for samples
    public: Path | None = None  # rows of the coordinator's own
    read: int = 0
    set_aside: tuple[Dropped, ...] = ()
    ignored: tuple[Dropped, ...] = ()
    unread: tuple[Unread, ...] = ()

    @property
    def trained(self) -> int:
        """Rows to train on, of all volunteers."""
        return sum(member.train_rows for member in self.members)

    @property
    def held_out(self) -> int:
        """Rows to measure with, of all volunteers."""
        return sum(member.held_out_rows for member in self.members)


def read_data(scenario: Scenario, pocket_cache: Path) -> Dataset:
    """Read the scenario's data; BadData as lora/data/reading.py has it."""
    return read(_data_path(scenario, pocket_cache))


def gather(scenario: Scenario, dataset: Dataset, folder: Path) -> Population:
    """Share the rows out and write one pair of files per volunteer into `folder`.

    The same scenario gives the same files. BadData if fewer than two volunteers are left.
    """
    public, shared = _public(scenario, dataset.conversations, folder)
    shards = _share(scenario, shared)
    usable = _usable(scenario, dataset, shards)
    books = _Books.of(scenario, shared, shards)
    books.of_coordinator(dataset.conversations, shared)
    members: list[SimulatedVolunteer] = []
    everyone: list[Conversation] = []
    shown: list[Conversation] = []
    for index, (name, rows) in enumerate(sorted(usable.items())):
        rng = generator(_seed(scenario.seed, f"split {name}"))
        train, held_out = split(rows, scenario.eval_fraction, scenario.eval_rows, rng)
        start = folder / f"{index:05d}"
        files = start.with_suffix(".train.jsonl"), start.with_suffix(".held_out.jsonl")
        write_jsonl(train, files[0])
        write_jsonl(held_out, files[1])
        members.append(SimulatedVolunteer(name, *files, len(train), len(held_out)))
        books.held_out_of(scenario, rows, train, held_out)
        everyone += train
        shown.append(held_out[0])
    write_jsonl(everyone, folder / "everyone.train.jsonl")
    return Population(
        tuple(members),
        merged(dataset.dropped, books.lost.dropped()),
        len(shards) - len(usable),
        folder / "everyone.train.jsonl",
        tuple(shown),
        public,
        dataset.rows,
        books.set_aside.dropped(),
        dataset.ignored,
        dataset.unread,
    )


def _usable(scenario: Scenario, dataset: Dataset, shards: Shards) -> Shards:
    """The shards that are large enough; BadData if there are not two of them."""
    usable = {name: rows for name, rows in shards.items() if len(rows) >= MIN_ROWS}
    if len(usable) < 2:
        raise BadData(f"{scenario.data}: {_too_few(dataset, shards)}")
    return usable


def _too_few(dataset: Dataset, shards: Shards) -> str:
    """Say what a federation needs that these rows are not enough for."""
    rows, sizes = len(dataset.conversations), sorted(map(len, shards.values()), reverse=True)
    lost = f" of {dataset.rows} ({in_words(dataset.dropped)})" if dataset.dropped else ""
    advice = "use fewer volunteers or more data" if rows >= 2 * MIN_ROWS else "use more data"
    shown = f"{', '.join(map(str, sizes[:5]))}{', …' if len(sizes) > 5 else ''}"
    return (
        f"{rows} rows can be used{lost}, and {len(sizes)} volunteers get {shown} of them; a "
        f"federation needs two with {MIN_ROWS} rows or more: {advice}"
    )


@dataclass(frozen=True)
class _Books:
    """Counts usable rows that nobody gets: lost, or set aside because a setting says so."""

    lost: Tally
    set_aside: Tally

    @classmethod
    def of(cls, scenario: Scenario, rows: Sequence[Conversation], shards: Shards) -> _Books:
        """Count the rows that are in no shard, or in one that is too small."""
        books, owned = cls(Tally(), Tally()), set[int]()
        for shard in shards.values():
            owned.update(map(id, shard))
            for row in shard if len(shard) < MIN_ROWS else ():
                reason = f"is of a volunteer with fewer than {MIN_ROWS} rows"
                books.lost.add(reason, row.origin)
        by = scenario.by or ""
        for row in rows:
            if id(row) in owned:
                continue
            if by and row.fields.get(by, "").strip():
                books.set_aside.add(f"is of none of the {len(shards)} largest", row.origin)
            else:
                books.lost.add(f"has no field {by!r}", row.origin)
        return books

    def of_coordinator(self, rows: Sequence[Conversation], shared: Sequence[Conversation]) -> None:
        """Count the rows that the coordinator keeps."""
        left = set(map(id, shared))
        for row in rows:
            if id(row) not in left:
                self.set_aside.add("is the coordinator's own (--public-rows)", row.origin)

    def held_out_of(
        self,
        scenario: Scenario,
        rows: Sequence[Conversation],
        train: Sequence[Conversation],
        held_out: Sequence[Conversation],
    ) -> None:
        """Count a volunteer's rows that were drawn as held out and are too many."""
        used = {id(row) for row in (*train, *held_out)}
        for row in rows:
            if id(row) not in used:
                reason = f"is held out beyond --eval-rows {scenario.eval_rows}"
                self.set_aside.add(reason, row.origin)


def _data_path(scenario: Scenario, pocket_cache: Path) -> Path:
    if scenario.data != POCKET:
        return Path(scenario.data)
    from nomoat.simulations.pocket.corpus import StandardLibraryNotFound, cached_jsonl

    try:
        return cached_jsonl(pocket_cache)
    except StandardLibraryNotFound as problem:
        raise BadData(str(problem)) from None


def _public(
    scenario: Scenario, rows: Sequence[Conversation], folder: Path
) -> tuple[Path | None, Sequence[Conversation]]:
    """The file with the coordinator's own rows, None if it has none; and the rows that are left."""
    if not scenario.public_rows:
        return None, rows
    order = generator(_seed(scenario.seed, "public")).permutation(len(rows))
    kept = set(order[: scenario.public_rows].tolist())
    path = folder / "public.jsonl"
    write_jsonl([row for place, row in enumerate(rows) if place in kept], path)
    return path, [row for place, row in enumerate(rows) if place not in kept]


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
