"""Small adapters that many tests need; a test that needs another shape says so itself."""

from __future__ import annotations

import numpy as np

from nomoat.aggregation.protocol.adapter import Adapter, AdapterSpec, LayerSpec

SPEC = AdapterSpec((LayerSpec("q", 4, 3, 2),), 2, 4.0, target_modules=("q",))


def adapter(seed: int, spec: AdapterSpec = SPEC) -> Adapter:
    """An adapter of normally distributed values, another for each seed."""
    values = np.random.default_rng(seed).standard_normal(spec.size)
    return Adapter(spec, values.astype(np.float32))


def at_rank(spec: AdapterSpec, rank: int) -> AdapterSpec:
    """The same layers and α at another rank."""
    layers = tuple(LayerSpec(x.name, x.d_out, x.d_in, rank) for x in spec.layers)
    return AdapterSpec(layers, rank, spec.alpha, spec.rslora, spec.target_modules)
