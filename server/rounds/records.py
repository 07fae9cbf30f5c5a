"""What is written down about a round, and what a run of rounds is made of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nomoat.aggregation.methods.base import MethodState
from nomoat.aggregation.methods.modules import same_scale
from nomoat.aggregation.methods.server_optimizer import OptimizerState, ServerOptimizer
from nomoat.aggregation.protocol.adapter import AdapterSpec
from nomoat.aggregation.protocol.messages import TrainSettings
from nomoat.server.rounds.learning_rate import Schedule


@dataclass(frozen=True)
class Federation:
    """What all rounds of a federation share. `seed` is 32 bytes; deadlines are seconds.

    `training.learning_rate` is the peak of `schedule`.
    """

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
    optimizer: ServerOptimizer = field(default_factory=ServerOptimizer)
    schedule: Schedule = "constant"


@dataclass
class Traffic:
    """Bytes to and from the coordinator, all volunteers together."""

    up: int = 0
    down: int = 0


@dataclass(frozen=True)
class RoundRecord:
    """One line of metrics.jsonl. Losses are nats per trained token.

    Bytes, of all volunteers together: in a simulation payload; of a coordinator's port all that
    HTTP carried since the round before ended, polling and downloads of adapters included.
    """

    round: int
    committed: bool
    reason: str
    cohort: tuple[str, ...] = ()
    contributors: tuple[str, ...] = ()
    dropped: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    loss: float | None = None  # macro average over volunteers' held-out rows
    losses: dict[str, float] = field(default_factory=dict)
    personal: dict[str, float] = field(default_factory=dict)  # with what each keeps to itself
    personal_loss: float | None = None  # macro average of what each has (`with_own`)
    ranks: dict[str, int] = field(default_factory=dict)  # modules each volunteer trained
    learning_rate: float | None = None
    evaluation: float | None = None  # on the community's own evaluation split
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
class RoundProgress:
    """Where a round stands now, for whoever watches."""

    round: int
    phase: str
    answered: int
    asked: int


@dataclass(frozen=True)
class FederationCheckpoint:
    """Everything the next round depends on, after `round` has ended."""

    round: int
    state: MethodState
    losses: dict[str, float]  # of the adapter that stands
    moments: OptimizerState = field(default_factory=OptimizerState)  # the server optimiser's
    evaluation: float | None = None  # its loss on the community's evaluation split
    personal: dict[str, float] = field(default_factory=dict)  # losses with what each keeps

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """State and moments, to be stored."""
        moments = {f"moments.{name}": values for name, values in self.moments.moments.items()}
        return {**self.state.to_arrays(), **moments}

    @classmethod
    def from_arrays(
        cls,
        round: int,
        spec: AdapterSpec,
        arrays: Mapping[str, NDArray[np.generic]],
        losses: dict[str, float],
    ) -> FederationCheckpoint:
        """What to_arrays gave. `spec`: the adapter's at the start; a method may have added modules.

        LocalProtocolError if the values are of no adapter with these layers.
        """
        per_rank = sum(layer.d_in + layer.d_out for layer in spec.layers)
        grown = same_scale(spec, max(1, arrays["adapter"].size // per_rank))
        moments = {
            name.removeprefix("moments."): values.astype(np.float32)
            for name, values in arrays.items()
            if name.startswith("moments.")
        }
        state = MethodState.from_arrays(grown, arrays)
        return cls(round, state, losses, OptimizerState(moments))


class Journal(Protocol):
    """Where ended rounds are written down; what it has accepted survives a kill."""

    def last(self) -> FederationCheckpoint | None:
        """Where to go on from, if anything was written."""

    def write(self, record: RoundRecord, checkpoint: FederationCheckpoint) -> None:
        """Write one ended round, all of it or nothing."""


class Watcher(Protocol):
    """Whoever follows a run (a terminal, a page, a log)."""

    def progress(self, progress: RoundProgress) -> None:
        """Something moved inside a round."""

    def ended(self, record: RoundRecord) -> None:
        """A round ended."""


def with_own(losses: Mapping[str, float], personal: Mapping[str, float]) -> dict[str, float]:
    """Everyone's loss with what it has: a part of its own, or as yet the community's alone."""
    return {name: personal.get(name, loss) for name, loss in losses.items()}


def personal_loss(losses: Mapping[str, float], personal: Mapping[str, float]) -> float | None:
    """Macro average over the volunteers that `losses` averages over; None if nobody has a part."""
    return macro(with_own(losses, personal)) if personal else None


def macro(losses: Mapping[str, float]) -> float | None:
    """Unweighted mean over volunteers; None of nobody."""
    return sum(losses[name] for name in sorted(losses)) / len(losses) if losses else None
