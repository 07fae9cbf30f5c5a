"""A round before it starts and after it has ended: its plan, its events, its outcome."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from nomoat.aggregation.methods.server_optimizer import ServerOptimizer
from nomoat.aggregation.protocol.messages import Ready, TrainTask
from nomoat.server.rounds.federation import FederationCheckpoint
from nomoat.server.rounds.machines.evidence import SessionEvidence
from nomoat.server.rounds.machines.interfaces import Exchange
from nomoat.server.rounds.machines.patience import Patience, Waiting


class RoundPhase(Enum):
    """The phases of a round; the last two end it."""

    NEW = "new"
    TRAINING = "training"
    AGGREGATING = "aggregating"
    EVALUATING = "evaluating"
    COMMITTED = "committed"
    ABANDONED = "abandoned"


@dataclass(frozen=True)
class RoundPlan:
    """The choices made before a round starts. Deadlines are seconds per phase.

    before: where the federation stands. patience: with those who are later than the others.
    """

    task: TrainTask
    cohort: tuple[str, ...]
    evaluators: tuple[str, ...]
    min_reports: int
    before: FederationCheckpoint
    tolerance: float | None = None
    train_deadline_s: float = math.inf
    evaluate_deadline_s: float = math.inf
    patience: Patience | None = None
    optimizer: ServerOptimizer = field(default_factory=ServerOptimizer)
    measured: bool = False  # the coordinator measures the candidate, too
    suspected: Mapping[str, float] = field(default_factory=dict)  # of spoiling sums: probabilities
    unheard: frozenset[str] = frozenset()  # whose losses do not count
    sums: int = 1  # masked ones, over disjoint parts of the cohort, at most

    @property
    def training(self) -> Waiting:
        """Return the waiting for those who train."""
        return Waiting(self.train_deadline_s, self.patience, self.min_reports)

    @property
    def evaluating(self) -> Waiting:
        """Return the waiting for those who measure."""
        return Waiting(self.evaluate_deadline_s, self.patience)


# (volunteer → rank it trained, number of the exchange, reply to the one before) → the exchange
OpenExchange: TypeAlias = Callable[[Mapping[str, int], int, bytes], Exchange]


@dataclass
class Events:
    """The events of a round, for its record, by volunteer."""

    ready: dict[str, Ready] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    contributors: tuple[str, ...] = ()
    sessions: tuple[SessionEvidence, ...] = ()  # each masked exchange
    left_out: tuple[tuple[str, ...], ...] = ()  # who was in each sum that was left out
    norm_bound: float | None = None  # of the first exchange
    misfits: frozenset[str] = frozenset()  # whose loss of the candidate nothing bears out
    phase_started: dict[RoundPhase, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """The end of a round: whether its adapter was accepted, why, and where to go on from."""

    committed: bool
    reason: str
    after: FederationCheckpoint
