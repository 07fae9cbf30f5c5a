"""Server optimisers against the paper's recursion written out per coordinate, and what composes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nomoat.aggregation.errors import UsageError
from nomoat.aggregation.methods import METHODS, SummedMethod, able
from nomoat.aggregation.methods.server_optimizer import (
    OptimizerState,
    ServerOptimizer,
    check,
    move,
    step,
)
from nomoat.aggregation.protocol.adapter import Adapter, AdapterSpec, LayerSpec

SPEC = AdapterSpec((LayerSpec("q", 6, 5, 2),), 2, 4.0)
SUMMED = [m for m in METHODS.values() if isinstance(m, SummedMethod) and m.traits.exchanges == 1]
KEEPING = [m for m in SUMMED if m.traits.optimizers]


def updates(count=4, size=5):
    return np.random.default_rng(0).normal(0, 0.01, (count, size)).astype(np.float32)


def by_hand(kind, eta, beta1, beta2, tau, deltas):
    """Reddi et al. 2021, Alg. 2, one coordinate in python floats; returns all steps."""
    m, v, steps = 0.0, tau**2, []
    for delta in deltas:
        if kind == "momentum":
            m = beta1 * m + delta
            steps.append(eta * m)
            continue
        m = beta1 * m + (1 - beta1) * delta
        if kind == "fedadam":
            v = beta2 * v + (1 - beta2) * delta**2
        else:
            v = v - (1 - beta2) * delta**2 * math.copysign(1, v - delta**2)
        steps.append(eta * m / (math.sqrt(v) + tau))
    return steps


@pytest.mark.parametrize("kind", ["momentum", "fedadam", "fedyogi"])
def test_steps_follow_the_paper(kind):
    optimizer = ServerOptimizer(kind, 0.3, 0.8, 0.95, 1e-3)
    state = OptimizerState()
    taken = []
    for delta in updates():
        moved, state = step(optimizer, state, delta, "ab")
        assert moved.dtype == np.float32
        taken.append(moved)
    for coordinate in range(5):
        wanted = by_hand(kind, 0.3, 0.8, 0.95, 1e-3, updates()[:, coordinate].astype(float))
        assert np.allclose([t[coordinate] for t in taken], wanted, rtol=1e-4, atol=1e-8)


def test_yogi_lets_go_of_a_large_second_moment_more_slowly_than_adam():
    big, small = np.float32([0.5]), np.float32([1e-3])
    steps = {}
    for kind in ("fedadam", "fedyogi"):
        state = OptimizerState()
        optimizer = ServerOptimizer(kind, beta1=0.0, beta2=0.5)
        for delta in (big, *[small] * 10):
            moved, state = step(optimizer, state, delta, "b")
        steps[kind] = float(moved[0])
    assert steps["fedyogi"] < steps["fedadam"] / 3


def test_plain_with_rate_one_is_no_optimiser_at_all():
    delta = updates()[0]
    moved, state = step(ServerOptimizer(), OptimizerState(), delta, "ab")
    assert np.array_equal(moved, delta)
    assert not state.moments


def test_a_round_of_a_does_not_advance_the_moments_of_b():
    optimizer = ServerOptimizer("momentum", beta1=0.5)
    a, b = np.float32([1.0, 1.0]), np.float32([2.0])
    _, state = step(optimizer, OptimizerState(), b, "b")
    _, state = step(optimizer, state, a, "a")
    moved, state = step(optimizer, state, b, "b")
    assert moved.tolist() == [3.0]
    assert state.moments["m.a"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("kind", ["plain", "momentum", "fedadam", "fedyogi"])
@pytest.mark.parametrize("method", KEEPING, ids=lambda m: m.name)
def test_every_optimiser_composes_with_every_method_that_keeps_coordinates(kind, method):
    rng = np.random.default_rng(0)
    state = method.begin(Adapter(SPEC, rng.normal(0, 0.3, SPEC.size).astype(np.float32)))
    optimizer = ServerOptimizer(kind, 0.1)
    states = state, OptimizerState()
    for number in (1, 2, 3, 4):
        before = states[0].adapter.vector
        mean = np.full(method.manifest(SPEC, number).size, 0.01, np.float32)
        moved, moments = move(method, optimizer, states, mean, number)
        states = method.commit(states[0], moved, number), moments
        moved = states[0].adapter.vector - before
        assert np.isfinite(moved).all()
        assert moved.max() > 1e-4
        assert moved.min() >= 0


@pytest.mark.parametrize("method", SUMMED, ids=lambda m: m.name)
def test_a_plain_rate_scales_the_step_of_every_method(method):
    rng = np.random.default_rng(0)
    state = method.begin(Adapter(SPEC, rng.normal(0, 0.3, SPEC.size).astype(np.float32)))
    mean = np.full(method.manifest(SPEC, 1).size, 0.25, np.float32)
    half, full = (
        method.commit(
            state,
            move(method, ServerOptimizer("plain", rate), (state, OptimizerState()), mean, 1)[0],
            1,
        )
        for rate in (0.5, 1.0)
    )

    def product(adapter):
        return np.concatenate([(b.astype(float) @ a).ravel() for _, a, b in adapter.factors()])

    if method.factors(1).key == "b":  # linear in B, whatever basis it is written in
        wanted = (product(state.adapter) + product(full.adapter)) / 2
        assert np.allclose(product(half.adapter), wanted, atol=1e-5)
    else:
        wanted_vector = (state.adapter.vector + full.adapter.vector) / 2
        assert np.allclose(half.adapter.vector, wanted_vector, atol=1e-6)


@pytest.mark.parametrize("name", ["fedsvd", "fedask"])
def test_memory_is_refused_where_coordinates_change_every_round(name):
    method = METHODS[name]
    check(ServerOptimizer(), method)
    for kind in ("momentum", "fedadam", "fedyogi"):
        with pytest.raises(UsageError, match=f"{name} derives new factors"):
            check(ServerOptimizer(kind), method)


def test_a_learning_rate_is_refused_where_a_reply_spans_the_whole_step():
    with pytest.raises(
        UsageError, match=r"fedask projects the whole step.*; fedavg, .*fedplora can"
    ):
        check(ServerOptimizer("plain", 0.5), METHODS["fedask"])
    for name in able(summable=True, exchanges=1):
        check(ServerOptimizer("plain", 0.5), METHODS[name])


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "adamw"},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"beta1": 1.0},
        {"beta2": -0.1},
        {"tau": 0.0},
    ],
)
def test_settings_that_cannot_be_meant_are_refused(options):
    with pytest.raises(UsageError):
        ServerOptimizer(**options)


def test_stepping_changes_no_argument():
    delta = updates()[0]
    delta.setflags(write=False)
    _, state = step(ServerOptimizer("fedyogi"), OptimizerState(), delta, "ab")
    kept = {name: values.copy() for name, values in state.moments.items()}
    step(ServerOptimizer("fedyogi"), state, delta, "ab")
    assert all(np.array_equal(state.moments[name], kept[name]) for name in kept)
