"""What is written down about a round, and what a run of rounds is made of."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from nomoat.aggregation.messages import TrainSettings
from nomoat.aggregation.methods.base import MethodState


@dataclass(frozen=True)
class Federation:
    """What all rounds of a federation share. `seed` is 32 bytes; deadlines are seconds."""

    method: str
    rounds: int
    training: TrainSettings
    base_hash: bytes
    seed: bytes
    fraction: float = 1.0
    min_reports: int = 2
    secure: bool = True
    clip: float | None = None  # bound on each value of an update; None: what training can reach
    tolerance: float = 0.05
    train_deadline_s: float = math.inf
    aggregate_deadline_s: float = math.inf
    evaluate_deadline_s: float = math.inf


@dataclass(frozen=True)
class RoundRecord:
    """One line of metrics.jsonl. Losses are nats per trained token; bytes are of payload."""

    round: int
    committed: bool
    reason: str
    cohort: tuple[str, ...] = ()
    contributors: tuple[str, ...] = ()
    dropped: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    loss: float | None = None  # macro average over volunteers' held-out rows
    losses: dict[str, float] = field(default_factory=dict)
    train_loss: dict[str, float] = field(default_factory=dict)
    tokens: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    seconds: dict[str, float] = field(default_factory=dict)  # per phase
    session: str = ""  # how the aggregation was protected
    adapter: str = ""  # digest of the adapter that stands after this round, hex
    train_seconds: dict[str, float] = field(default_factory=dict)  # as each volunteer measured it

    def as_json(self) -> dict[str, Any]:
        """A JSON-able object."""
        return asdict(self)


@dataclass(frozen=True)
class Progress:
    """Where a round stands now, for whoever watches."""

    round: int
    phase: str
    answered: int
    asked: int


@dataclass(frozen=True)
class Checkpoint:
    """Everything the next round depends on, after `round` has ended."""

    round: int
    state: MethodState
    losses: dict[str, float]  # of the adapter that stands


class Journal(Protocol):
    """Where ended rounds are written down; what it has accepted survives a kill."""

    def last(self) -> Checkpoint | None:
        """Where to go on from, if anything was written."""

    def write(self, record: RoundRecord, checkpoint: Checkpoint) -> None:
        """Write one ended round, all of it or nothing."""


class Watcher(Protocol):
    """Whoever follows a run (a terminal, a page, a log)."""

    def progress(self, progress: Progress) -> None:
        """Something moved inside a round."""

    def ended(self, record: RoundRecord) -> None:
        """A round ended."""
