"""Fed-PLoRA: parallel rank-1 modules, averaged over those who trained them."""

from __future__ import annotations

import numpy as np

from nomoat.aggregation.methods.base import (
    LocalRound,
    LocalStart,
    MethodState,
    SummedMethod,
    Traits,
)
from nomoat.aggregation.methods.lowrank import raw_bits
from nomoat.aggregation.protocol.adapter import (
    Adapter,
    AdapterSpec,
    Manifest,
    TensorSpec,
    Vector,
)

SHARE = "modules.trained"
ROUNDING = 1e-2  # of fixed point with few bits


class FedPLora(SummedMethod):
    """Module j moves by Σ wᵢΔⱼᵢ / Σ wᵢ over the volunteers i that trained it.

    A volunteer of rank rᵢ trains rᵢ of the R modules, drawn from (round, its seed), on top of the
    others frozen ("Select-N-Fold"). Beside its zero-padded change it sends R ones and zeros; both
    sums are plain, so the quotient works under secure aggregation. A module nobody trained stays.
    With equal ranks this is fedavg, cross terms included. The paper draws modules at random
    without saying how; here by a public generator, so that a replay draws the same.
    """

    name = "fedplora"
    summary = "random rank-1 modules per volunteer, averaged over who trained them; mixed ranks"
    source = "Zhang et al. 2026, Fed-PLoRA (arXiv:2602.16936)"
    traits = Traits(summable=True, mixed_ranks=True, exact=False, optimizers=True, uniform=False)

    def start(self, broadcast: Adapter, turn: LocalRound) -> LocalStart:
        """turn.rank modules, drawn by turn.round and turn.seed."""
        rank = broadcast.spec.rank
        order = np.argsort(raw_bits(rank, "fedplora", turn.round, turn.seed.hex()), kind="stable")
        chosen = sorted(int(j) for j in order[: self._rank(broadcast, turn)])
        return self._start(broadcast, tuple(chosen), turn.round)

    def manifest(
        self,
        spec: AdapterSpec,
        round: int,
        exchange: int = 1,
        rank: int | None = None,
    ) -> Manifest:
        """A and B of every layer, and one value per module: trained or not."""
        return Manifest((*spec.manifest.tensors, TensorSpec(SHARE, (spec.rank,))))

    def upload(
        self,
        local: LocalStart,
        trained: Adapter,
        round: int,
        exchange: int = 1,
        reply: Vector | None = None,
    ) -> Vector:
        """Trained minus broadcast, then the indicator."""
        taught = np.zeros(local.broadcast.spec.rank, np.float32)
        taught[list(local.modules)] = 1.0
        return np.concatenate([local.whole(trained).vector - local.broadcast.vector, taught])

    def clips(
        self, broadcast: Adapter, round: int, exchange: int, reach: float
    ) -> tuple[float, ...]:
        """The reach of training, and 1 for the indicator."""
        *factors, _ = super().clips(broadcast, round, exchange, reach)
        return (*factors, 1.0)

    def bounded(self, spec: AdapterSpec, round: int, exchange: int) -> int:
        """All but the indicator."""
        return spec.size

    def fault_of_mean(self, spec: AdapterSpec, mean: Vector, round: int) -> str | None:
        """A share of volunteers is at least nothing and at most everybody."""
        share = mean[spec.size :]
        if share.min() < -ROUNDING or share.max() > 1 + ROUNDING:
            return "the modules trained are fewer than none, or more than all"
        return None

    def update(self, state: MethodState, mean: Vector, round: int) -> Vector:
        """The mean change divided by each module's share of the weight; (d,) without the shares."""
        spec = state.adapter.spec
        share = mean[spec.size :]
        # Under fixed point a module that nobody trained sums to a rounding error, not to zero.
        trained = share > 1e-5
        gain = np.where(trained, 1.0 / np.where(trained, share, 1.0), 0.0).astype(np.float32)
        change = Adapter(spec, mean[: spec.size].copy())
        for _, a, b in change.factors():
            np.multiply(a, gain[:, None], out=a)
            np.multiply(b, gain, out=b)
        return change.vector
