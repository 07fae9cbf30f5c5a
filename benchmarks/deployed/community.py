"""A community of real processes on loopback, started and watched through the commands people use.

nomoat init, up, invite and join, each in a process of its own; TLS, node authentication and
SQLite as they come. What the benchmark adds is a watch on when rounds end.
"""

from __future__ import annotations

import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deployed import model
from nomoat.server.rounds.records import RoundRecord
from nomoat.simulations.loopback.processes import LoopbackFederation

NAMES = ("ada", "ben", "cleo")
START_S, ROUND_S = 400.0, 300.0
LOOK_S = 0.01
TRAINING = ("--local-steps", "2", "--batch-size", "4", "--seq-len", "64", "--lr", "1e-4")
ROWS = 40


@dataclass(frozen=True)
class Community:
    """The community's folder, its training, and whether updates are masked."""

    root: Path
    base: Path
    environment: Mapping[str, str]
    secure: bool
    rounds: int

    @contextmanager
    def up(self) -> Iterator[LoopbackFederation]:
        """A coordinator that is up and waits for volunteers; everything ends with the block."""
        self.root.mkdir(parents=True)
        masks = ("--allow-weak",) if self.secure else ("--no-secure",)
        people = ("--min-volunteers", str(len(NAMES)), "--max-rounds", str(self.rounds))
        with LoopbackFederation(self.root, environment=self.environment) as federation:
            shape = ("--rank", str(model.RANK))
            federation.init("benchmark", self.base, (*people, *masks, *shape, *TRAINING))
            federation.up()
            federation.wait("the coordinator", lambda: bool(federation.hosted()), START_S)
            yield federation

    def join(self, federation: LoopbackFederation, names: tuple[str, ...] = NAMES) -> None:
        """Invite and start these volunteers, each with rows of its own."""
        link = federation.invite(len(names))
        for name in names:
            rows = self.root / f"{name}.jsonl"
            texts = (f"{name} writes line {number} of {name}'s notes" for number in range(ROWS))
            rows.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
            federation.join(name, link, rows, self.base)


@dataclass(frozen=True)
class Ended:
    """A round that has ended, and the moment it did (seconds of the monotonic clock)."""

    record: RoundRecord
    at: float


def follow(
    federation: LoopbackFederation, rounds: int, note: Callable[[], None] = lambda: None
) -> list[Ended]:
    """Rounds 0 to `rounds`, each noted within LOOK_S of its end; `note` is called with each."""
    ended: list[Ended] = []
    path, size = federation.root / "up.out", -1
    started = time.monotonic()
    while len(ended) <= rounds:
        found = path.stat().st_size
        if found != size:
            size = found
            now = time.monotonic()
            for record in federation.records()[len(ended) :]:
                ended.append(Ended(record, now))
                note()
        if time.monotonic() - started > START_S + rounds * ROUND_S:
            raise TimeoutError(f"{len(ended) - 1} of {rounds} rounds: {federation.last('up')}")
        time.sleep(LOOK_S)
    return ended


def overheads(ended: list[Ended]) -> list[float]:
    """Per round: wall time since the round before ended, less the slowest training, seconds.

    Round 1 is left out: its volunteers start their workers and load the base model.
    """
    found = []
    for before, this in itertools.pairwise(ended[1:]):
        if not this.record.committed or len(this.record.contributors) != len(NAMES):
            raise RuntimeError(f"round {this.record.round}: {this.record}")
        found.append(this.at - before.at - max(this.record.train_seconds.values()))
    return found


def walls(ended: list[Ended]) -> list[float]:
    """Per round after the first: wall time since the round before ended, seconds."""
    return [this.at - before.at for before, this in itertools.pairwise(ended[1:])]


def phases(ended: list[Ended]) -> dict[str, float]:
    """Median seconds of each phase, and of the slowest training."""
    records = [round_.record for round_ in ended[2:]]
    names = records[0].seconds
    found = {name: statistics.median(r.seconds[name] for r in records) for name in names}
    slowest = [max(r.train_seconds.values()) for r in records]
    return {**found, "slowest training": statistics.median(slowest)}
