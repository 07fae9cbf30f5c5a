"""fedavg, ffa, rolora, fedsvd: what an average of factors is and is not."""

from __future__ import annotations

import numpy as np
import pytest

from nomoat.aggregation.methods import get
from nomoat.aggregation.methods.base import LocalRound
from nomoat.aggregation.methods.reference import Player, play_round


def players(lab, count=6, ranks=(4,), size=0.05):
    rng = np.random.default_rng(3)
    return [
        Player(float(rng.uniform(0.1, 1)), ranks[i % len(ranks)], lab.drift(i, size), bytes([i]))
        for i in range(count)
    ]


@pytest.mark.parametrize("name", ["ffa", "rolora", "fedsvd"])
@pytest.mark.parametrize("round_number", [1, 2])
@pytest.mark.parametrize("ranks", [(4,), (1, 2, 4)], ids=["equal", "mixed"])
def test_one_factor_methods_are_exact(lab, name, round_number, ranks):
    method = get(name)
    state = method.begin(lab.adapter())
    crowd = players(lab, ranks=ranks)
    after = play_round(method, state, crowd, round_number)
    wanted = lab.mean_dense(method, state, crowd, round_number)
    assert lab.distance(lab.dense(after.adapter), wanted) <= 1e-5


def test_fedavg_misses_exactly_the_cross_terms(lab):
    method = get("fedavg")
    state = method.begin(lab.adapter())
    crowd = players(lab)
    after = play_round(method, state, crowd, 1)
    wanted = lab.mean_dense(method, state, crowd)
    total = sum(p.weight for p in crowd)
    trained = [p.train(method.start(state.adapter, LocalRound(1, 4))) for p in crowd]
    for layer, a, b in after.adapter.factors():
        cross = 0
        for player, adapter in zip(crowd, trained, strict=True):
            its_a, its_b = next((x, y) for at, x, y in adapter.factors() if at.name == layer.name)
            far_b, far_a = its_b.astype(float) - b, its_a.astype(float) - a
            cross = cross + player.weight / total * far_b @ far_a
        missed = wanted[layer.name] - lab.dense(after.adapter)[layer.name]
        assert np.allclose(missed, after.adapter.spec.scale * cross, atol=1e-5)
        assert np.linalg.norm(cross) > 1e-3


def test_fedavg_error_is_second_order_in_the_drift(lab):
    method = get("fedavg")
    state = method.begin(lab.adapter())
    errors = []
    for size in (0.04, 0.02):
        crowd = players(lab, size=size)
        after = play_round(method, state, crowd, 1)
        wanted = lab.mean_dense(method, state, crowd)
        errors.append(lab.distance(lab.dense(after.adapter), wanted))
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)


def test_alternating_methods_send_half_and_keep_the_other_factor(lab):
    for name, round_number, moved in (("ffa", 1, "b"), ("ffa", 2, "b"), ("rolora", 2, "a")):
        method = get(name)
        state = method.begin(lab.adapter())
        names = {t.name for t in method.manifest(state.adapter.spec, round_number).tensors}
        assert all(f"lora_{moved.upper()}" in tensor for tensor in names)
        after = play_round(method, state, players(lab), round_number)
        pairs = zip(state.adapter.factors(), after.adapter.factors(), strict=True)
        for (_, a0, b0), (_, a1, b1) in pairs:
            assert np.array_equal(a0, a1) == (moved == "b")
            assert np.array_equal(b0, b1) == (moved == "a")


def test_rolora_begins_with_b():
    """With B = 0 the gradient of A vanishes: a first round of A would train nothing."""
    assert [get("rolora").factors(n).key for n in (1, 2, 3, 4)] == ["b", "a", "b", "a"]


def test_fedsvd_keeps_a_orthonormal_and_its_row_space(lab):
    method = get("fedsvd")
    start = lab.adapter()
    state = method.begin(start)
    for number in (1, 2, 3):
        state = play_round(method, state, players(lab), number)
    for (_, a0, _), (_, a, b) in zip(start.factors(), state.adapter.factors(), strict=True):
        assert np.allclose(a @ a.T, np.eye(4), atol=1e-5)
        gram = b.T @ b
        assert np.allclose(gram, np.diag(np.diag(gram)), atol=1e-4)
        assert np.linalg.norm(a0 - (a0 @ a.T) @ a) < 1e-4 * np.linalg.norm(a0)
        strengths = np.linalg.norm(b, axis=0)
        assert (np.diff(strengths) <= 1e-6).all()  # strongest first: low ranks train those


def test_fedsvd_begins_orthonormal_even_where_b_is_zero(lab):
    adapter = lab.adapter()
    for _, _, b in adapter.factors():
        b[...] = 0
    for _, a, b in get("fedsvd").begin(adapter).adapter.factors():
        assert np.allclose(a @ a.T, np.eye(4), atol=1e-5)
        assert not b.any()
