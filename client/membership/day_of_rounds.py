"""A day's count of a community's work on this machine: rounds.json, in its folder.

Rounds are counted by what is trained and measured in them, not by their numbers: a training tells
its first loss, so a coordinator that has many small ones made in one round learns as much as one
that makes many rounds (docs/protocol.md §5.4).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from nomoat.aggregation.protocol.messages import EvaluateTask, TrainTask, task_digest
from nomoat.storage.private import write_private

DAY_S = 86_400.0
FILE = "rounds.json"
TRAININGS = 3  # of one round: its own, and those of a coordinator that began it again otherwise


@dataclass(frozen=True, slots=True)
class BegunWork:
    """A task that was begun at `at`, unix time. task: the start of its digest."""

    kind: Literal["train", "measure"]
    round: int
    task: str
    at: float


@dataclass(frozen=True)
class DayOfRounds:
    """Counts over the last 24 hours of this machine's clock. most: rounds a day."""

    folder: Path
    most: int
    clock: Callable[[], float] = time.time

    def begin(self, task: TrainTask) -> str | None:
        """Count a training in; what forbids it in words for the owner, None if nothing does.

        The training that was begun last, gone on with after a restart say, counts once.
        """
        name, day = task_digest(task).hex()[:16], self._day()
        trained = [work for work in day if work.kind == "train"]
        if trained and trained[-1].task == name:
            return None
        if sum(work.round == task.round for work in trained) >= TRAININGS:
            return f"round {task.round} was begun {TRAININGS} times already, each time otherwise"
        return self._count("train", task.round, name, day)

    def measure(self, task: EvaluateTask) -> str | None:
        """Count the round of a measurement in, once; the same answers."""
        day = self._day()
        if any((work.kind, work.round) == ("measure", task.round) for work in day):
            return None
        return self._count("measure", task.round, task_digest(task).hex()[:16], day)

    def _count(
        self, kind: Literal["train", "measure"], number: int, name: str, day: Sequence[BegunWork]
    ) -> str | None:
        same = [work for work in day if work.kind == kind]
        if len(same) >= self.most:
            at = time.strftime("%H:%M", time.localtime(same[0].at + DAY_S))
            done = {"train": "trained", "measure": "measured"}[kind]
            return (
                f"{len(same)} rounds were {done} within a day, which is what was agreed to on "
                f"joining, or fewer by rounds_a_day in settings.toml; the next may be at {at}"
            )
        rows = [*day, BegunWork(kind, number, name, self.clock())]
        write_private(self.folder / FILE, json.dumps([asdict(row) for row in rows]).encode())
        return None

    def _day(self) -> list[BegunWork]:
        """Read what was begun within a day, or after now, if the clock was set back."""
        now = self.clock()
        try:
            rows = json.loads((self.folder / FILE).read_bytes())
            found = [BegunWork(r["kind"], r["round"], r["task"], min(r["at"], now)) for r in rows]
        except (OSError, ValueError, TypeError, KeyError):
            return []
        return [work for work in found if work.at > now - DAY_S]
