"""FLoRA: stack everybody's factors, fold them into the base, start afresh."""

from __future__ import annotations

import numpy as np

from nomoat.aggregation.errors import LocalProtocolError
from nomoat.aggregation.methods import modules
from nomoat.aggregation.methods.base import MethodState, PlaintextMethod, PlaintextReport, Traits
from nomoat.aggregation.methods.lowrank import fresh_rows
from nomoat.aggregation.methods.plaintext.stacking import (
    Weighted,
    frozen_modules,
    grown,
    open_uploads,
)


class Flora(PlaintextMethod):
    """Base ← base + s·[p₁B₁ p₂B₂ …][A₁; A₂; …], exactly; then a new random A and B = 0.

    The stack is kept as frozen modules behind the r trainable ones and compressed to its
    numerical rank (at most stacking.MAX_GROWN_RANK modules in all, or 2r), so the download grows
    with volunteers and rounds but not without bound. A volunteer of lower rank trains the first
    modules. A is drawn as PEFT draws it, from (round, layer).
    """

    name = "flora"
    summary = "fold the stacked factors into the base and restart; exact, the download grows"
    source = "Wang et al. 2024, FLoRA (arXiv:2409.05976)"
    traits = Traits(
        summable=False, mixed_ranks=True, exact=True, optimizers=False, grows=True, steady=False
    )

    def commit_each(
        self, state: MethodState, uploads: tuple[PlaintextReport, ...], round: int
    ) -> MethodState:
        """Stack onto the base, then fresh factors for the next round."""
        if any(upload.rank > state.rank for upload in uploads):
            raise LocalProtocolError(f"flora trains at most {state.rank} modules")
        base = open_uploads(state.adapter.spec, uploads)
        frozen = frozen_modules(state)
        untouched = _untouched(state, uploads)
        for name, parts in base.items():
            parts.extend(frozen[name] + untouched[name])
        spec = modules.same_scale(state.adapter.spec, state.rank)
        fresh = {
            layer.name: (
                fresh_rows(layer.rank, layer.d_in, "flora", round, layer.name),
                np.zeros((layer.d_out, layer.rank)),
            )
            for layer in spec.layers
        }
        return grown(state, modules.build(spec, fresh), base)


def _untouched(
    state: MethodState, uploads: tuple[PlaintextReport, ...]
) -> dict[str, list[Weighted]]:
    """Trainable modules as broadcast, each weighted with those whose rank did not reach it.

    Only a first broadcast with B ≠ 0 has anything there.
    """
    total = sum(upload.weight for upload in uploads)
    return {
        layer.name: [
            (
                sum(upload.weight for upload in uploads if upload.rank <= j) / total,
                a[j : j + 1],
                b[:, j : j + 1],
            )
            for j in range(state.rank)
        ]
        for layer, a, b in state.adapter.factors()
    }
