"""FlexLoRA: SVD of the mean product, truncated to each volunteer's rank."""

from __future__ import annotations

from dataclasses import replace

from nomoat.aggregation.methods import lowrank, modules
from nomoat.aggregation.methods.base import (
    LocalRound,
    LocalStart,
    MethodState,
    PlaintextMethod,
    PlaintextReport,
    Traits,
)
from nomoat.aggregation.methods.plaintext.stacking import open_uploads
from nomoat.aggregation.protocol.adapter import Adapter


class FlexLora(PlaintextMethod):
    """SVD_r(Σ pᵢBᵢAᵢ), by QR of the stacked factors and an SVD of rank Σrᵢ; never dense.

    A volunteer of rank rᵢ receives the rᵢ strongest directions and nothing of the rest, as in
    the paper; it starts from another function than its peers, which the first directions bound.
    The SVD is split as lowrank.trainable does (the paper: B = UΣ, A = Vᵀ).
    """

    name = "flexlora"
    summary = "best rank-r approximation of the mean product; sees every volunteer's factors"
    source = "Bai et al. 2024, FlexLoRA (arXiv:2402.11505)"
    traits = Traits(summable=False, mixed_ranks=True, exact=True, optimizers=False, steady=False)

    def start(self, broadcast: Adapter, turn: LocalRound) -> LocalStart:
        """The first turn.rank modules alone."""
        chosen = tuple(range(self._rank(broadcast, turn)))
        part = modules.select(broadcast, chosen)
        return LocalStart(broadcast, part, None, chosen, self.factors(turn.round))

    def commit_each(
        self,
        state: MethodState,
        uploads: tuple[PlaintextReport, ...],
        round: int,
    ) -> MethodState:
        """Stack, decompose, truncate."""
        spec = state.adapter.spec
        layers = open_uploads(spec, uploads)
        parts = {}
        for layer, a, _ in state.adapter.factors():
            found = lowrank.svd(*lowrank.stack(layers[layer.name]))
            parts[layer.name] = lowrank.trainable(found, spec.rank, a)
        return replace(state, adapter=modules.build(spec, parts))
