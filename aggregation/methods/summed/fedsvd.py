"""FedSVD: train B only, and re-derive an orthonormal A from B̄A after every round."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from nomoat.aggregation.methods import lowrank
from nomoat.aggregation.methods.base import Factors, MethodState, SummedMethod, Traits
from nomoat.aggregation.methods.modules import derive
from nomoat.aggregation.protocol.adapter import Adapter, LayerSpec, Vector
from nomoat.aggregation.sums.parallel import Run


class FedSvd(SummedMethod):
    """B̄ = B + Σ pᵢΔBᵢ, then B̄A = UΣVᵀ gives the next A = Vᵀ (orthonormal) and B = UΣ.

    The average is exact, as in ffa; the new basis equalises the directions of A, whose row space
    stays that of the start. The first broadcast is brought into the same form. Modules come
    sorted by singular value, so volunteers of lower rank (not in the paper) train the strongest.
    """

    name = "fedsvd"
    summary = (
        "train and average B only, A made orthonormal by SVD each round; exact, half the bytes"
    )
    source = "Lee et al. 2025, FedSVD (arXiv:2505.12805)"
    traits = Traits(summable=True, mixed_ranks=True, exact=True, optimizers=False, steady=False)

    def factors(self, round: int) -> Factors:
        """B, always."""
        return Factors(a=False, b=True)

    def begin(self, adapter: Adapter) -> MethodState:
        """The same product with orthonormal A."""
        turned = derive(adapter, lambda _, a, b: lowrank.orthonormal_rows(b, a))
        return MethodState(turned, adapter.spec.rank)

    def commit(
        self,
        state: MethodState,
        update: Vector,
        round: int,
        reply: Vector | None = None,
        run: Run = map,
    ) -> MethodState:
        """Add the mean of B and turn the sum, layer by layer."""
        changes = self.manifest(state.adapter.spec, round).views(update)

        def turned(
            layer: LayerSpec, a: NDArray[np.float32], b: NDArray[np.float32]
        ) -> tuple[lowrank.Floats, lowrank.Floats]:
            return lowrank.orthonormal_rows(b + changes[layer.b.name], a)

        return replace(state, adapter=derive(state.adapter, turned, run))
