"""FedRot-LoRA: volunteers rotate their factors onto the broadcast's before averaging."""

from __future__ import annotations

import numpy as np

from nomoat.aggregation.methods.base import LocalStart, SummedMethod, Traits
from nomoat.aggregation.methods.lowrank import Floats, Matrix
from nomoat.aggregation.methods.modules import build
from nomoat.aggregation.protocol.adapter import Adapter, Vector


class FedRot(SummedMethod):
    """As fedavg, of (BᵢRᵢ, RᵢᵀAᵢ) with Rᵢ orthogonal and closest to the broadcast (B₀, A₀).

    BᵢRᵢRᵢᵀAᵢ = BᵢAᵢ: what a volunteer learned is unchanged, only its coordinates are. Rᵢ
    minimises ‖BᵢR − B₀‖² + ‖RᵀAᵢ − A₀‖², the squared length of what is sent: with
    UΣVᵀ = BᵢᵀB₀ + AᵢA₀ᵀ it is UVᵀ (Schönemann 1966). The paper aligns A and B in alternating
    rounds and blends with the identity by a strength λ; chosen here: both at once, full strength,
    which leaves nothing to tune and never sends more than fedavg does.
    """

    name = "fedrot"
    summary = "rotate factors onto the last broadcast, then average A and B; smaller cross terms"
    source = "Zhang et al. 2026, FedRot-LoRA (arXiv:2602.23638)"
    traits = Traits(summable=True, mixed_ranks=True, exact=False, optimizers=True)

    def upload(
        self,
        local: LocalStart,
        trained: Adapter,
        round: int,
        exchange: int = 1,
        reply: Vector | None = None,
    ) -> Vector:
        """Rotated minus broadcast."""
        whole, start = local.whole(trained), local.broadcast
        parts: dict[str, tuple[Floats, Floats]] = {}
        for (layer, a, b), (_, a0, b0) in zip(whole.factors(), start.factors(), strict=True):
            turn = closest_rotation(a, b, a0, b0)
            parts[layer.name] = turn.T @ a, b @ turn
        return build(start.spec, parts).vector - start.vector


def closest_rotation(a: Floats, b: Floats, a0: Floats, b0: Floats) -> Matrix:
    """The orthogonal R (r, r) that minimises ‖BR − B₀‖² + ‖RᵀA − A₀‖²."""
    b64, a64 = b.astype(np.float64), a.astype(np.float64)
    u, _, vt = np.linalg.svd(b64.T @ b0 + a64 @ a0.T.astype(np.float64))
    return np.asarray(u @ vt)
