"""FedASK: the sum of products BᵢAᵢ through two sums of sketches."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nomoat.aggregation.errors import LocalProtocolError
from nomoat.aggregation.methods import lowrank
from nomoat.aggregation.methods.base import LocalStart, MethodState, SummedMethod, Traits
from nomoat.aggregation.methods.modules import derive
from nomoat.aggregation.protocol.adapter import (
    Adapter,
    AdapterSpec,
    LayerSpec,
    Manifest,
    TensorSpec,
    Vector,
)
from nomoat.aggregation.sums.parallel import Run

SKETCH_Y = ".sketch_Y"
SKETCH_Z = ".sketch_Z"


@dataclass(frozen=True)
class FedAsk(SummedMethod):
    """Randomised SVD of M = Σ pᵢBᵢAᵢ of which the coordinator only ever sees sums.

    Exchange 1 sums BᵢAᵢΩ − B₀A₀Ω (d_out, w); the coordinator adds B₀A₀Ω and replies with an
    orthonormal basis Q of the result. Exchange 2 sums AᵢᵀBᵢᵀQ − A₀ᵀB₀ᵀQ (d_in, w); with the
    broadcast's own part added that is Z = MᵀQ, and QZᵀ truncated to rank r is the next adapter.
    w = r + oversampling. Exact (the best rank-r approximation) if rank M ≤ w, else off by about
    the (w+1)-th singular value. A volunteer missing from exchange 2 only makes Q less apt; the
    result is still a projection of the mean over those who stayed.

    Differences (small, hence fit for clipping) instead of the paper's whole products, both
    factors trained, and Ω public from (round, layer): the paper leaves all three open. Refactored
    as lowrank.trainable does, since √σ alone would leave dead modules.
    """

    oversampling: int = 8

    name = "fedask"
    summary = "two sums of sketches give the SVD of the mean product; exact if its rank fits"
    source = "Wen et al. 2025, FedASK (arXiv:2507.09990)"
    traits = Traits(
        summable=True,
        mixed_ranks=True,
        exact=True,
        optimizers=False,
        exchanges=2,
        steady=False,
        uniform=False,
    )

    def width(self, layer: LayerSpec) -> int:
        """Columns w of the sketch of a layer."""
        return min(layer.rank + self.oversampling, layer.d_out, layer.d_in)

    def manifest(
        self,
        spec: AdapterSpec,
        round: int,
        exchange: int = 1,
        rank: int | None = None,
    ) -> Manifest:
        """Y (d_out, w) of every layer in exchange 1, Z (d_in, w) in exchange 2."""
        return Manifest(tuple(self._tensor(layer, exchange) for layer in spec.layers))

    def upload(
        self,
        local: LocalStart,
        trained: Adapter,
        round: int,
        exchange: int = 1,
        reply: Vector | None = None,
    ) -> Vector:
        """The sketch of the trained product minus the broadcast's."""
        whole, start = local.whole(trained), local.broadcast
        bases = self._bases(start.spec, round, reply) if exchange == 2 else {}
        change = {}
        for (layer, a, b), (_, a0, b0) in zip(whole.factors(), start.factors(), strict=True):
            probe = bases[layer.name + SKETCH_Y] if exchange == 2 else self._omega(layer, round)
            change[self._tensor(layer, exchange).name] = np.asarray(
                _sketch(a, b, probe, exchange) - _sketch(a0, b0, probe, exchange), np.float32
            )
        return self.manifest(start.spec, round, exchange).join(change)

    def clips(
        self, broadcast: Adapter, round: int, exchange: int, reach: float
    ) -> tuple[float, ...]:
        """Bound a sketch's values, if no value of A or B moves further than `reach`.

        Exchange 1: the smaller of two bounds of |(ΔBA₀ + B₀ΔA + ΔBΔA)Ω|, by Hölder's inequality,
        and six standard deviations of a normal Ω, which training has not seen. Exchange 2: Hölder
        with ‖Qⱼ‖₁ ≤ √d_out.
        """
        return tuple(
            self._sketch_bound(layer, (a, b), round, reach)
            if exchange == 1
            else reach
            * float(
                np.linalg.norm(b, axis=0).sum()
                + np.sqrt(layer.d_out) * (np.abs(a).sum(0).max() + layer.rank * reach)
            )
            for layer, a, b in broadcast.factors()
        )

    def _sketch_bound(
        self,
        layer: LayerSpec,
        factors: tuple[NDArray[np.float32], NDArray[np.float32]],
        round: int,
        reach: float,
    ) -> float:
        a, b = factors
        omega = self._omega(layer, round)
        own = np.abs(b).sum(1).max() + layer.rank * reach
        never = np.abs(a @ omega).sum(0).max() + np.abs(omega).sum(0).max() * own
        step = np.sqrt(layer.rank)  # of a row of B, in units of reach
        row = step * np.linalg.norm(a, 2) + np.sqrt(layer.d_in) * step * (
            np.linalg.norm(b, axis=1).max() + step * reach
        )
        return reach * float(min(never, 6.0 * row / np.sqrt(self.width(layer))))

    def reply(
        self, state: MethodState, mean: Vector, round: int, exchange: int, run: Run = map
    ) -> Vector:
        """Q (d_out, w) of every layer, in exchange 1's layout."""
        if exchange != 1:
            return super().reply(state, mean, round, exchange)
        manifest = self.manifest(state.adapter.spec, round, 1)
        vector = np.empty(manifest.size, np.float32)
        changes, bases = manifest.views(mean), manifest.views(vector)

        def fill(factors: tuple[LayerSpec, NDArray[np.float32], NDArray[np.float32]]) -> None:
            layer, a, b = factors
            name = layer.name + SKETCH_Y
            own = _sketch(a, b, self._omega(layer, round), 1)
            bases[name][...] = lowrank.range_basis(own + changes[name])

        list(run(fill, state.adapter.factors()))
        return vector

    def commit(
        self,
        state: MethodState,
        update: Vector,
        round: int,
        reply: Vector | None = None,
        run: Run = map,
    ) -> MethodState:
        """The rank-r truncation of QZᵀ."""
        spec = state.adapter.spec
        bases = self._bases(spec, round, reply)
        changes = self.manifest(spec, round, 2).views(update)

        def truncated(
            layer: LayerSpec, a: NDArray[np.float32], b: NDArray[np.float32]
        ) -> tuple[lowrank.Matrix, lowrank.Matrix]:
            basis = bases[layer.name + SKETCH_Y].astype(np.float64)
            z = _sketch(a, b, basis, 2) + changes[layer.name + SKETCH_Z]
            return lowrank.trainable(lowrank.svd_within(basis, z.T), spec.rank, a)

        return replace(state, adapter=derive(state.adapter, truncated, run))

    def _tensor(self, layer: LayerSpec, exchange: int) -> TensorSpec:
        suffix, rows = {1: (SKETCH_Y, layer.d_out), 2: (SKETCH_Z, layer.d_in)}[exchange]
        return TensorSpec(layer.name + suffix, (rows, self.width(layer)))

    def _omega(self, layer: LayerSpec, round: int) -> lowrank.Matrix:
        """Ω (d_in, w) of a layer, the same for everyone."""
        return lowrank.sketch_matrix(layer.d_in, self.width(layer), "fedask", round, layer.name)

    def _bases(
        self, spec: AdapterSpec, round: int, reply: Vector | None
    ) -> dict[str, NDArray[np.float32]]:
        if reply is None:
            raise LocalProtocolError("fedask's second exchange needs the first one's reply")
        return self.manifest(spec, round, 1).views(reply)


def _sketch(
    a: lowrank.Floats, b: lowrank.Floats, probe: lowrank.Floats, exchange: int
) -> lowrank.Matrix:
    """B(AΩ) (d_out, w) in exchange 1, Aᵀ(BᵀQ) (d_in, w) in exchange 2, float64."""
    first, second = (b, a) if exchange == 1 else (a.T, b.T)
    return np.asarray(first.astype(np.float64) @ (second.astype(np.float64) @ probe))
