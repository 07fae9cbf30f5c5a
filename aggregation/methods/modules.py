"""An adapter as a sum of rank-1 modules: choose some, put them back, append, change the scale."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from nomoat.aggregation.errors import LocalProtocolError
from nomoat.aggregation.protocol.adapter import (
    LORA_A,
    LORA_B,
    Adapter,
    AdapterSpec,
    LayerSpec,
    Manifest,
    Vector,
)
from nomoat.aggregation.sums.parallel import Run

Floats = NDArray[np.float32] | NDArray[np.float64]
_Layer: TypeAlias = tuple[LayerSpec, NDArray[np.float32], NDArray[np.float32]]


def same_scale(spec: AdapterSpec, rank: int) -> AdapterSpec:
    """`spec` at another rank with α chosen so that s = α/r (α/√r under rsLoRA) stays.

    With one α for all ranks a rank-4 and a rank-16 volunteer would mean different things by the
    same B and A.
    """
    if rank == spec.rank:
        return spec
    alpha = spec.scale * (math.sqrt(rank) if spec.rslora else rank)
    # There and back again gives 16.0 and not 15.999999999999998.
    round_alpha = float(f"{alpha:.12g}")
    alpha = round_alpha if math.isclose(alpha, round_alpha, rel_tol=1e-14) else alpha
    layers = tuple(LayerSpec(x.name, x.d_out, x.d_in, rank) for x in spec.layers)
    return AdapterSpec(layers, rank, alpha, spec.rslora, spec.target_modules)


def factor_manifest(spec: AdapterSpec, key: str) -> Manifest:
    """The manifest of both factors ("ab"), of A ("a") or of B ("b")."""
    if key == "ab":
        return spec.manifest
    return spec.manifest.only(LORA_A if key == "a" else LORA_B)


def build(spec: AdapterSpec, factors: Mapping[str, tuple[Floats, Floats]]) -> Adapter:
    """An adapter from layer name → (A, B)."""
    values: dict[str, NDArray[np.float32]] = {}
    for layer in spec.layers:
        a, b = factors[layer.name]
        values[layer.a.name] = a.astype(np.float32, copy=False)
        values[layer.b.name] = b.astype(np.float32, copy=False)
    return Adapter(spec, spec.manifest.join(values))


def derive(
    adapter: Adapter,
    factors: Callable[[LayerSpec, NDArray[np.float32], NDArray[np.float32]], tuple[Floats, Floats]],
    run: Run = map,
) -> Adapter:
    """An adapter of the same spec whose A and B of each layer are factors(layer, A, B).

    run: how layers are worked on. LocalProtocolError if a factor has another shape.
    """
    derived = Adapter(adapter.spec, np.empty(adapter.spec.size, np.float32))

    def fill(old: _Layer, new: _Layer) -> None:
        layer, *room = new
        for target, values in zip(room, factors(*old), strict=True):
            if target.shape != values.shape:
                raise LocalProtocolError(f"{layer.name}: {values.shape} is not {target.shape}")
            target[...] = values

    list(run(fill, adapter.factors(), derived.factors()))
    return derived


def select(adapter: Adapter, chosen: tuple[int, ...]) -> Adapter:
    """The modules `chosen`, as an adapter of that rank and the same scale."""
    if chosen == tuple(range(adapter.spec.rank)):
        return adapter
    rows = list(chosen)
    parts = {layer.name: (a[rows], b[:, rows]) for layer, a, b in adapter.factors()}
    return build(same_scale(adapter.spec, len(chosen)), parts)


def scatter(whole: Adapter, part: Adapter, places: tuple[int, ...]) -> Adapter:
    """`whole` with the modules at `places` replaced by those of `part`."""
    rows = list(places)
    vector = whole.vector.copy()
    target = Adapter(whole.spec, vector)
    for (_, a, b), (_, new_a, new_b) in zip(target.factors(), part.factors(), strict=True):
        a[rows], b[:, rows] = new_a, new_b
    return target


def append(first: Adapter, second: Adapter) -> Adapter:
    """Both adapters' modules, in this order: rank r₁ + r₂, the same scale."""
    parts = {
        layer.name: (np.vstack([a, more_a]), np.hstack([b, more_b]))
        for (layer, a, b), (_, more_a, more_b) in zip(
            first.factors(), second.factors(), strict=True
        )
    }
    return build(same_scale(first.spec, first.spec.rank + second.spec.rank), parts)


def restrict(vector: Vector, spec: AdapterSpec, part: Manifest) -> Vector:
    """Of an adapter's flat vector, the tensors of `part`, flat."""
    if part.size == vector.size:
        return vector
    views = spec.manifest.views(vector)
    return part.join({tensor.name: views[tensor.name] for tensor in part.tensors})


def add(adapter: Adapter, change: Vector, part: Manifest) -> Adapter:
    """`adapter` plus a change of the tensors of `part` only; the reverse of restrict."""
    whole = Adapter(adapter.spec, adapter.vector.copy())
    targets = adapter.spec.manifest.views(whole.vector)
    for name, values in part.views(change).items():
        targets[name] += values
    return whole
