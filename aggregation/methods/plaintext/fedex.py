"""FedEx-LoRA: average the factors and put what the average misses into the base."""

from __future__ import annotations

import numpy as np

from nomoat.aggregation.errors import LocalProtocolError
from nomoat.aggregation.methods import modules
from nomoat.aggregation.methods.base import MethodState, PlaintextMethod, PlaintextReport, Traits
from nomoat.aggregation.methods.lowrank import Floats
from nomoat.aggregation.methods.plaintext.stacking import (
    Weighted,
    frozen_modules,
    grown,
    open_uploads,
)


class FedEx(PlaintextMethod):
    """A ← Σ pᵢAᵢ, B ← Σ pᵢBᵢ, base ← base + s(Σ pᵢBᵢAᵢ − B̄Ā): exact.

    The residual is kept as frozen modules behind the trainable ones, compressed to its numerical
    rank (bounded as flora's). Averaging factors needs equal ranks.
    """

    name = "fedex"
    summary = "average A and B, add the missing cross terms to the base; exact, equal ranks"
    source = "Singhal et al. 2024, FedEx-LoRA (arXiv:2410.09432)"
    traits = Traits(summable=False, mixed_ranks=False, exact=True, optimizers=False, grows=True)

    def commit_each(
        self,
        state: MethodState,
        uploads: tuple[PlaintextReport, ...],
        round: int,
    ) -> MethodState:
        """Average, then the residual into the base."""
        if any(upload.rank != state.rank for upload in uploads):
            raise LocalProtocolError(f"fedex averages factors: every rank must be {state.rank}")
        base = open_uploads(state.adapter.spec, uploads)
        frozen = frozen_modules(state)
        means: dict[str, tuple[Floats, Floats]] = {}
        for name, parts in base.items():
            means[name] = _mean(parts)
            parts.extend([(-1.0, *means[name]), *frozen[name]])
        spec = modules.same_scale(state.adapter.spec, state.rank)
        return grown(state, modules.build(spec, means), base)


def _mean(parts: list[Weighted]) -> tuple[Floats, Floats]:
    """(Ā, B̄), rounded to float32 as they will be broadcast, so that the residual is of those."""
    mean_a = np.sum([p * a.astype(np.float64) for p, a, _ in parts], axis=0)
    mean_b = np.sum([p * b.astype(np.float64) for p, _, b in parts], axis=0)
    return mean_a.astype(np.float32), mean_b.astype(np.float32)
