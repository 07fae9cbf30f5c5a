"""Several adapters as one, exactly: their ranks put side by side.

    Σ wᵢ sᵢ Bᵢ Aᵢ  =  [w₁s₁B₁ … wₙsₙBₙ] [A₁; …; Aₙ]

Adding the factors themselves, TIES and DARE are something else; PEFT's own `cat` keeps √r under
rsLoRA and is then wrong without a word. Stacking as in FLoRA (arXiv:2409.05976).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nomoat.aggregation.errors import UsageError
from nomoat.aggregation.protocol.adapter import Adapter, AdapterSpec, LayerSpec, Vector
from nomoat.aggregation.protocol.messages import MAX_RANK
from nomoat.lora.export.factors import PREFIX, Factor


def side_by_side(adapters: Sequence[Adapter], weights: Sequence[float] | None = None) -> Adapter:
    """The one adapter that adds what all of them add, each times its weight (1 if left out).

    Its rank is the sum of theirs, α = rank, so that its scale is 1 in every program. A layer that
    only some of them have gets zeros for the others. UsageError if two of them are of layers of
    different sizes, or the rank is beyond MAX_RANK.
    """
    weights = [1.0] * len(adapters) if weights is None else weights
    if not adapters or len(weights) != len(adapters):
        raise UsageError(f"{len(adapters)} adapters need as many weights, not {len(weights)}")
    rank = sum(adapter.spec.rank for adapter in adapters)
    if rank > MAX_RANK:
        raise UsageError(f"together they have rank {rank}, more than {MAX_RANK}")
    shapes = _shapes(adapters)
    layers = tuple(LayerSpec(name, *shapes[name], rank) for name in sorted(shapes))
    targets = sorted({name for adapter in adapters for name in adapter.spec.target_modules})
    spec = AdapterSpec(layers, rank, float(rank), False, tuple(targets))
    vector: Vector = np.zeros(spec.size, np.float32)
    views = spec.manifest.views(vector)
    start = 0
    for adapter, weight in zip(adapters, weights, strict=True):
        rows = slice(start, start + adapter.spec.rank)
        scale = np.float32(adapter.spec.scale * weight)
        for layer, a, b in adapter.factors():
            views[layer.a.name][rows] = a
            views[layer.b.name][:, rows] = b * scale
        start = rows.stop
    return Adapter(spec, vector)


def of_factors(factors: Sequence[Factor]) -> Adapter:
    """Factors of any ranks as one adapter: the largest rank, the others filled up with zeros."""
    rank = max(factor.rank for factor in factors)
    if rank > MAX_RANK:
        raise UsageError(f"an adapter of rank {rank} is beyond {MAX_RANK}")
    named = {f"{PREFIX}{factor.module}": factor for factor in factors}
    layers = tuple(
        LayerSpec(name, named[name].b.shape[0], named[name].a.shape[1], rank)
        for name in sorted(named)
    )
    targets = tuple(sorted({factor.module.rpartition(".")[2] for factor in factors}))
    spec = AdapterSpec(layers, rank, float(rank), False, targets)
    vector: Vector = np.zeros(spec.size, np.float32)
    views = spec.manifest.views(vector)
    for layer in layers:
        factor = named[layer.name]
        views[layer.a.name][: factor.rank] = factor.a
        views[layer.b.name][:, : factor.rank] = factor.b
    return Adapter(spec, vector)


def _shapes(adapters: Sequence[Adapter]) -> dict[str, tuple[int, int]]:
    """(d_out, d_in) of every layer that any of them has."""
    shapes: dict[str, tuple[int, int]] = {}
    for adapter in adapters:
        for layer in adapter.spec.layers:
            size = (layer.d_out, layer.d_in)
            if shapes.setdefault(layer.name, size) != size:
                raise UsageError(f"{layer.name} differs in size: they belong to different bases")
    return shapes
