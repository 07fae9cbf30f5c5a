"""Fed-PLoRA averages each module over those who trained it, and over nobody else."""

from __future__ import annotations

import numpy as np

from nomoat.aggregation.methods import get
from nomoat.aggregation.methods.base import LocalRound
from nomoat.aggregation.methods.reference import Player, play_round
from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.aggregation.sums.exact_sum import ExactSum


def shift(amount):
    def train(local):
        return Adapter(local.adapter.spec, local.adapter.vector + np.float32(amount))

    return train


def test_each_module_moves_by_the_mean_of_those_who_trained_it(lab):
    method = get("fedplora")
    state = method.begin(lab.adapter())
    crowd = [
        Player(w, r, shift(s), bytes([i]))
        for i, (w, r, s) in enumerate(
            [(0.5, 1, 0.1), (0.25, 2, 0.2), (1.0, 2, -0.1), (0.1, 3, 0.3)]
        )
    ]
    after = play_round(method, state, crowd, 1)
    chosen = [method.start(state.adapter, LocalRound(1, p.rank, p.seed)).modules for p in crowd]
    moves = (0.1, 0.2, -0.1, 0.3)
    for j in range(4):
        those = [(p.weight, m) for p, c, m in zip(crowd, chosen, moves, strict=True) if j in c]
        wanted = sum(w * m for w, m in those) / sum(w for w, _ in those) if those else 0.0
        pairs = zip(state.adapter.factors(), after.adapter.factors(), strict=True)
        for (_, a0, b0), (_, a1, b1) in pairs:
            assert np.allclose(a1[j] - a0[j], wanted, atol=1e-5)
            assert np.allclose(b1[:, j] - b0[:, j], wanted, atol=1e-5)


def test_a_module_that_nobody_trained_stays_bit_for_bit(lab):
    method = get("fedplora")
    state = method.begin(lab.adapter())
    modules = method.start(state.adapter, LocalRound(1, 2, b"only")).modules
    after = play_round(method, state, [Player(1.0, 2, shift(0.1), b"only")], 1)
    rest = [j for j in range(4) if j not in modules]
    for (_, a0, _), (_, a1, _) in zip(
        state.adapter.factors(), after.adapter.factors(), strict=True
    ):
        assert np.array_equal(a0[rest], a1[rest])
        assert not np.array_equal(a0, a1)


def test_rounding_noise_in_an_untrained_modules_share_moves_nothing(lab):
    """Fixed point under masking sums a zero to ±1e-7; dividing by that would explode."""
    method = get("fedplora")
    state = method.begin(lab.adapter())
    size = state.adapter.spec.size
    mean = np.full(size + 4, 1e-7, np.float32)
    assert not method.update(state, mean, 1).any()
    mean[size:] = -1e-7
    assert not method.update(state, mean, 1).any()


def test_with_equal_ranks_it_is_fedavg(lab):
    crowd = [Player(0.2 * i + 0.1, 4, lab.drift(i), bytes([i])) for i in range(4)]
    results = [
        play_round(get(n), get(n).begin(lab.adapter()), crowd, 1).adapter.vector
        for n in ("fedavg", "fedplora")
    ]
    assert np.allclose(*results, atol=1e-6)


def test_modules_are_drawn_evenly_and_replayably(lab):
    method = get("fedplora")
    adapter = lab.adapter()
    counts = np.zeros(4)
    for round_number in range(1, 201):
        turn = LocalRound(round_number, 2, b"someone")
        modules = method.start(adapter, turn).modules
        assert modules == method.start(adapter, turn).modules
        counts[list(modules)] += 1
    assert counts.sum() == 400
    assert counts.min() > 75  # each is expected 100 ± 7 times
    draws = {method.start(adapter, LocalRound(1, 2, bytes([i]))).modules for i in range(40)}
    assert len(draws) == 6


def test_lower_ranks_do_not_dilute_a_module(lab):
    """Zero-padded averaging (fedavg) halves a module that half of the volunteers trained."""
    crowd = [Player(0.5, 4, shift(0.1), b"x"), Player(0.5, 1, shift(0.0), b"y")]
    moved = {}
    for name in ("fedavg", "fedplora"):
        state = get(name).begin(lab.adapter())
        after = play_round(get(name), state, crowd, 1)
        moved[name] = np.abs(after.adapter.vector - state.adapter.vector).max()
    assert np.isclose(moved["fedplora"], 0.1, atol=1e-5)
    assert np.isclose(moved["fedavg"], 0.05, atol=1e-5)


def test_indicator_travels_in_the_sum(lab):
    method = get("fedplora")
    state = method.begin(lab.adapter())
    manifest = method.manifest(state.adapter.spec, 1)
    total = ExactSum.empty(manifest.size)
    for seed in (b"a", b"b"):
        local = method.start(state.adapter, LocalRound(1, 2, seed))
        total.add(method.upload(local, local.adapter, 1), 0.5)
    assert np.isclose(manifest.views(total.mean())["modules.trained"].sum(), 2)
