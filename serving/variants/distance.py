"""The distance of two adapters, layer by layer, without a dense ΔW."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.lora.export.factors import PREFIX
from nomoat.lora.export.side_by_side import side_by_side


@dataclass(frozen=True, slots=True)
class LayerDistance:
    """One layer: ‖ΔW‖_F in the first adapter, and of the difference of both."""

    layer: str
    norm: float
    moved: float


def distances(first: Adapter, second: Adapter) -> tuple[LayerDistance, ...]:
    """Every layer that either has, the one that moved most first.

    ‖BA‖²_F = tr(BᵀB · AAᵀ), two r × r products.
    """
    apart = _norms(side_by_side((second, first), (1.0, -1.0)))
    before = _norms(first)
    found = [
        LayerDistance(name.removeprefix(PREFIX), before.get(name, 0.0), moved)
        for name, moved in apart.items()
    ]
    return tuple(sorted(found, key=lambda layer: (-layer.moved, layer.layer)))


def _norms(adapter: Adapter) -> dict[str, float]:
    norms = {}
    for layer, a, b in adapter.factors():
        wide, tall = a.astype(np.float64), b.astype(np.float64)
        square = float(((tall.T @ tall) * (wide @ wide.T)).sum())
        norms[layer.name] = adapter.spec.scale * float(np.sqrt(max(square, 0.0)))
    return norms
