"""A federation across its rounds: what all of them share, and where it stands between two."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from nomoat.aggregation.methods.base import MethodState
from nomoat.aggregation.methods.modules import same_scale
from nomoat.aggregation.methods.server_optimizer import OptimizerState, ServerOptimizer
from nomoat.aggregation.protocol.adapter import AdapterSpec
from nomoat.aggregation.protocol.messages import TrainSettings
from nomoat.server.rounds.acceptance import HeldOutLosses
from nomoat.server.rounds.learning_rate import Schedule
from nomoat.server.rounds.machines.patience import Patience


@dataclass(frozen=True)
class Federation:
    """The settings all rounds share. `seed` is 32 bytes; deadlines are seconds.

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
    norm_bound: float | None = None  # on an update's L2 norm; None: learned, where there are rows
    audit: bool = False  # masked updates are sketched, so that who exceeds the bound leaves
    robust: float = 0.0  # part of the volunteers that a mean without masks bears; 0: stock mean
    sessions: int = 1  # masked sums a round, at most, while sums had to be thrown away
    noise_multiplier: float = 0.0  # noise in every masked sum over norm_bound
    tolerance: float | None = None  # relative rise of loss accepted; None: what noise explains
    train_deadline_s: float = math.inf
    aggregate_deadline_s: float = math.inf
    evaluate_deadline_s: float = math.inf
    optimizer: ServerOptimizer = field(default_factory=ServerOptimizer)
    schedule: Schedule = "constant"
    patience: Patience | None = None  # with those who are later than the others; None: unlimited
    spares: bool = False  # a round that nothing was summed in does not count as one of `rounds`


@dataclass(frozen=True)
class FederationCheckpoint:
    """Everything the next round depends on, after `round` has ended.

    spared: of the rounds up to `round`, those that count as none.
    """

    round: int
    state: MethodState
    losses: dict[str, float]  # of the adapter that stands
    moments: OptimizerState = field(default_factory=OptimizerState)  # the server optimiser's
    evaluation: float | None = None  # its loss on the community's evaluation split
    personal: dict[str, float] = field(default_factory=dict)  # losses with what each keeps
    best: HeldOutLosses | None = None  # of the best version; None: of the one that stands
    spared: int = 0

    @property
    def counted(self) -> int:
        """Rounds that have ended and count."""
        return self.round - self.spared

    def passing(self, number: int) -> FederationCheckpoint:
        """Return where the federation stands when nothing came of the rounds up to `number`."""
        return replace(self, round=number, spared=self.spared + number - self.round)

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
        """Read what to_arrays gave. `spec`: the adapter's at the start; a method may have added
        modules.

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
