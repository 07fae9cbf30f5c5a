"""A small community with layers of different shapes, and the dense oracle in float64."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from nomoat.aggregation.methods.base import LocalRound
from nomoat.aggregation.protocol.adapter import Adapter, AdapterSpec, LayerSpec

SHAPES = {"down": (13, 29), "up": (24, 17), "wide": (8, 40)}


def make_spec(rank=4, alpha=8.0, rslora=False):
    layers = tuple(LayerSpec(n, m, k, rank) for n, (m, k) in sorted(SHAPES.items()))
    return AdapterSpec(layers, rank, alpha, rslora, tuple(SHAPES))


def make_adapter(rank=4, seed=0, size=0.3, **spec):
    made = make_spec(rank, **spec)
    values = np.random.default_rng(seed).normal(0, size, made.size)
    return Adapter(made, values.astype(np.float32))


def drift(seed, size=0.05):
    def train(local):
        moved = Adapter(local.adapter.spec, local.adapter.vector.copy())
        rng = np.random.default_rng(seed)
        for _, a, b in moved.factors():
            for values, trained in ((a, local.factors.a), (b, local.factors.b)):
                values[...] += trained * rng.normal(0, size, values.shape).astype(np.float32)
        return moved

    return train


def dense(adapter):
    """Layer → ΔW = s·BA, float64."""
    return {
        layer.name: adapter.spec.scale * b.astype(np.float64) @ a.astype(np.float64)
        for layer, a, b in adapter.factors()
    }


def mean_dense(method, state, players, round_number=1):
    """Layer → Σ pᵢsᵢBᵢAᵢ of what the players train, float64."""
    total = sum(player.weight for player in players)
    result = {}
    for player in players:
        local = method.start(state.adapter, LocalRound(round_number, player.rank, player.seed))
        model = dense(player.train(local))
        if local.frozen is not None:
            frozen = dense(local.frozen)
            model = {name: model[name] + frozen[name] for name in model}
        for name, product in model.items():
            result[name] = result.get(name, 0) + player.weight / total * product
    return result


def distance(got, wanted):
    """Relative Frobenius distance over all layers."""
    error = sum(np.sum((got[name] - wanted[name]) ** 2) for name in wanted)
    return np.sqrt(error / sum(np.sum(product**2) for product in wanted.values()))


def best_of_rank(products, rank):
    """Dense truncated SVD of every layer: the slow oracle."""
    best = {}
    for name, product in products.items():
        u, s, vt = np.linalg.svd(product, full_matrices=False)
        best[name] = (u[:, :rank] * s[:rank]) @ vt[:rank]
    return best


@pytest.fixture
def lab():
    return SimpleNamespace(
        spec=make_spec,
        adapter=make_adapter,
        drift=drift,
        dense=dense,
        mean_dense=mean_dense,
        distance=distance,
        best_of_rank=best_of_rank,
    )
