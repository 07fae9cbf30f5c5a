"""Server optimisers: the coordinator's step from the mean update, plain, with momentum, adaptive.

The mean update Δ plays the part of a negative gradient (Reddi et al. 2021, arXiv:2003.00295,
Alg. 2; momentum: Hsu et al. 2019, arXiv:1909.06335). It composes with every method whose update
keeps its coordinates (`traits.optimizers`); "plain" with every method that has an update.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nomoat.aggregation import methods
from nomoat.aggregation.errors import UsageError
from nomoat.aggregation.methods.base import MethodState, SummedMethod
from nomoat.aggregation.protocol.adapter import Vector

Kind = Literal["plain", "momentum", "fedadam", "fedyogi"]
KINDS: tuple[Kind, ...] = ("plain", "momentum", "fedadam", "fedyogi")


@dataclass(frozen=True, slots=True)
class ServerOptimizer:
    """A server optimiser and its parameters (names as in the paper).

    learning_rate η; beta1 decays the mean, beta2 the mean square; tau τ bounds the step and is
    to be of the size of the updates' values (the paper's 1e-3 suits LoRA deltas).
    """

    kind: Kind = "plain"
    learning_rate: float = 1.0
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f"no server optimiser {self.kind!r}; choose {', '.join(KINDS)}")
        if not 0 < self.learning_rate < np.inf:
            raise UsageError(f"server learning rate must be positive, not {self.learning_rate}")
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1):
            raise UsageError("server beta1 and beta2 must be in [0, 1)")
        if not 0 < self.tau < np.inf:
            raise UsageError(f"server tau must be positive, not {self.tau}")

    @classmethod
    def of(
        cls,
        kind: Kind,
        learning_rate: float | None,
        momentum: float,
        betas: tuple[float, float],
        tau: float,
    ) -> ServerOptimizer:
        """From settings in which everything has a place; UsageError for one without effect.

        learning_rate None: 1 where the mean update itself is added, 0.01 where it is divided by
        its own size, which is what a LoRA factor moves in a round.
        """
        usual = cls()
        adaptive = kind in ("fedadam", "fedyogi")
        if kind != "momentum" and momentum != usual.beta1:
            raise UsageError(f"a server momentum has no effect with {kind}; use momentum")
        if not adaptive and (*betas, tau) != (usual.beta1, usual.beta2, usual.tau):
            raise UsageError(f"server beta1, beta2 and tau have no effect with {kind}")
        if learning_rate is None:
            learning_rate = 0.01 if adaptive else 1.0
        beta1 = momentum if kind == "momentum" else betas[0]
        return cls(kind, learning_rate, beta1, betas[1], tau)

    @property
    def has_memory(self) -> bool:
        """True if it keeps moments from round to round."""
        return self.kind != "plain"


@dataclass(frozen=True)
class OptimizerState:
    """Moments by name: "m.b" is the first moment of B's update, "v.ab" the second of A and B's.

    A method that alternates factors has one set per factor, each advancing in its own rounds.
    """

    moments: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)


def step(
    optimizer: ServerOptimizer, state: OptimizerState, update: Vector, key: str
) -> tuple[Vector, OptimizerState]:
    """Return what is added to the adapter instead of the mean update Δ, and the new moments.

    plain: ηΔ.  momentum: m ← β₁m + Δ, ηm.
    fedadam: m ← β₁m + (1−β₁)Δ, v ← β₂v + (1−β₂)Δ², ηm/(√v + τ).
    fedyogi: as fedadam with v ← v − (1−β₂)Δ² sign(v − Δ²).
    m starts at 0, v at τ² (Alg. 2 asks v₋₁ ≥ τ²); no bias correction, as in the paper. `key`
    names the coordinates of Δ.
    """
    eta = np.float32(optimizer.learning_rate)
    if optimizer.kind == "plain":
        return eta * update, state
    old = state.moments.get(f"m.{key}", np.zeros_like(update))
    beta1 = np.float32(optimizer.beta1)
    if optimizer.kind == "momentum":
        mean = beta1 * old + update
        return eta * mean, _with(state, {f"m.{key}": mean})
    mean = beta1 * old + (1 - beta1) * update
    square = _second_moment(optimizer, state, update, key)
    moved = (eta * mean / (np.sqrt(square) + np.float32(optimizer.tau))).astype(np.float32)
    return moved, _with(state, {f"m.{key}": mean, f"v.{key}": square})


def check(optimizer: ServerOptimizer, method: SummedMethod) -> None:
    """Raise UsageError if the method's update has no place for a memory, or for a learning rate.

    Where factors are re-derived every round (an SVD), coordinate j of one round's update and of
    the next have nothing to do with each other. Where a first exchange finds the space that the
    second one measures in, it is that of the whole step, not of η of it.
    """
    if optimizer.has_memory and not method.traits.optimizers:
        raise UsageError(
            f"{method.name} derives new factors every round, so {optimizer.kind} has nothing to "
            "accumulate; use plain, or another method"
        )
    if optimizer.learning_rate != 1 and method.traits.exchanges > 1:
        can = ", ".join(methods.able(summable=True, exchanges=1))
        raise UsageError(
            f"{method.name} projects the whole step, so a server learning rate other than 1 would "
            f"be off; {can} can"
        )


def move(
    method: SummedMethod,
    optimizer: ServerOptimizer,
    states: tuple[MethodState, OptimizerState],
    mean: Vector,
    round: int,
) -> tuple[Vector, OptimizerState]:
    """From the last exchange's mean to the update that commit() takes, and the next moments."""
    check(optimizer, method)
    state, moments = states
    update = method.update(state, mean, round)
    return step(optimizer, moments, update, method.factors(round).key)


def _second_moment(
    optimizer: ServerOptimizer, state: OptimizerState, update: Vector, key: str
) -> Vector:
    start = np.full_like(update, optimizer.tau**2)
    old = state.moments.get(f"v.{key}", start)
    square = update * update
    beta2 = np.float32(optimizer.beta2)
    if optimizer.kind == "fedadam":
        return beta2 * old + (1 - beta2) * square
    return old - (1 - beta2) * square * np.sign(old - square)


def _with(state: OptimizerState, moments: Mapping[str, Vector]) -> OptimizerState:
    return OptimizerState({**state.moments, **moments})
