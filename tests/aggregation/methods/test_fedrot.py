"""FedRot-LoRA undoes rotations of the factors, which fedavg averages into nothing."""

from __future__ import annotations

import numpy as np
import pytest

from nomoat.aggregation.methods import get
from nomoat.aggregation.methods.base import LocalRound
from nomoat.aggregation.methods.reference import Player, play_round
from nomoat.aggregation.methods.summed.fedrot import closest_rotation
from nomoat.aggregation.protocol.adapter import Adapter


def rotated(inner, seed):
    """The same product in other coordinates: (BR, RᵀA)."""

    def train(local):
        result = inner(local)
        turn, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(4, 4)))
        moved = Adapter(result.spec, result.vector.copy())
        for _, a, b in moved.factors():
            a[...], b[...] = turn.T @ a, b @ turn
        return moved

    return train


def test_rotated_volunteers_count_as_if_they_were_not(lab):
    plain = [Player(0.5, 4, lab.drift(i)) for i in range(4)]
    turned = [Player(0.5, 4, rotated(p.train, i)) for i, p in enumerate(plain)]
    method = get("fedrot")
    state = method.begin(lab.adapter())
    one, other = (play_round(method, state, crowd, 1).adapter for crowd in (plain, turned))
    assert np.allclose(one.vector, other.vector, atol=1e-5)


def test_fedavg_is_ruined_by_the_same_rotations(lab):
    """The outlier that a plain mean does not survive; else the test above would prove nothing."""
    plain = [Player(0.5, 4, lab.drift(i)) for i in range(4)]
    turned = [Player(0.5, 4, rotated(p.train, i)) for i, p in enumerate(plain)]
    for name, bound in (("fedavg", 0.5), ("fedrot", 0.05)):
        method = get(name)
        state = method.begin(lab.adapter())
        wanted = lab.mean_dense(method, state, turned)
        error = lab.distance(lab.dense(play_round(method, state, turned, 1).adapter), wanted)
        assert (error > bound) == (name == "fedavg")


def test_rotation_is_the_closest_of_many(lab):
    rng = np.random.default_rng(0)
    a, a0 = rng.normal(size=(2, 4, 9)).astype(np.float32)
    b, b0 = rng.normal(size=(2, 7, 4)).astype(np.float32)

    def length(turn):
        return np.sum((b @ turn - b0) ** 2) + np.sum((turn.T @ a - a0) ** 2)

    best = closest_rotation(a, b, a0, b0)
    assert np.allclose(best @ best.T, np.eye(4), atol=1e-12)
    others = [np.linalg.qr(rng.normal(size=(4, 4)))[0] for _ in range(300)]
    assert all(length(best) <= length(other) + 1e-9 for other in others)


def test_upload_is_never_longer_than_fedavgs(lab):
    state = get("fedavg").begin(lab.adapter())
    for seed in range(5):
        lengths = []
        for name in ("fedrot", "fedavg"):
            method = get(name)
            local = method.start(state.adapter, LocalRound(1, 4))
            lengths.append(np.linalg.norm(method.upload(local, lab.drift(seed, 0.3)(local), 1)))
        assert lengths[0] <= lengths[1] * (1 + 1e-6)


def test_an_untrained_adapter_sends_almost_nothing(lab):
    method = get("fedrot")
    state = method.begin(lab.adapter())
    local = method.start(state.adapter, LocalRound(1, 4))
    assert np.abs(method.upload(local, local.adapter, 1)).max() == pytest.approx(0, abs=1e-6)
