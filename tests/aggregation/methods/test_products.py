"""fedask, flexlora, flora, fedex: methods of the products BᵢAᵢ against the dense oracle."""

from __future__ import annotations

import numpy as np
import pytest

from nomoat.aggregation.methods import get
from nomoat.aggregation.methods.base import LocalRound
from nomoat.aggregation.methods.plaintext.stacking import MAX_GROWN_RANK
from nomoat.aggregation.methods.reference import Player, play_round
from nomoat.aggregation.methods.summed.fedask import FedAsk
from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.aggregation.protocol.messages import MAX_RANK


def crowd_of(lab, count=5, ranks=(4,), size=0.2):
    rng = np.random.default_rng(11)
    return [
        Player(float(rng.uniform(0.1, 1)), ranks[i % len(ranks)], lab.drift(i, size), bytes([i]))
        for i in range(count)
    ]


def regauged(inner, seed):
    """The same product through an invertible matrix: (BG, G⁻¹A)."""

    def train(local):
        result = inner(local)
        moved = Adapter(result.spec, result.vector.copy())
        rank = moved.spec.rank
        gauge = np.eye(rank) + 0.3 * np.random.default_rng(seed).normal(size=(rank, rank))
        for _, a, b in moved.factors():
            a[...], b[...] = np.linalg.solve(gauge, a), b @ gauge
        return moved

    return train


@pytest.mark.parametrize("ranks", [(4,), (1, 2, 4)], ids=["equal", "mixed"])
def test_flexlora_is_the_dense_truncated_svd(lab, ranks):
    method = get("flexlora")
    state = method.begin(lab.adapter())
    crowd = crowd_of(lab, ranks=ranks)
    after = play_round(method, state, crowd, 1)
    best = lab.best_of_rank(lab.mean_dense(method, state, crowd), 4)
    assert lab.distance(lab.dense(after.adapter), best) <= 1e-5


@pytest.mark.parametrize(
    ("name", "ranks"), [("flora", (4,)), ("flora", (1, 2, 4)), ("fedex", (4,))]
)
def test_growing_methods_are_exact_round_after_round(lab, name, ranks):
    method = get(name)
    state = method.begin(lab.adapter())
    crowd = crowd_of(lab, ranks=ranks)
    for number in (1, 2, 3):
        wanted = lab.mean_dense(method, state, crowd, number)
        state = play_round(method, state, crowd, number)
        assert lab.distance(lab.dense(state.adapter), wanted) <= 1e-5
        assert state.rank == 4
        smallest = max(min(x.d_out, x.d_in) for x in state.adapter.spec.layers)
        assert state.adapter.spec.rank <= 4 + smallest  # numerical rank, not rounds × volunteers
        assert state.adapter.spec.scale == pytest.approx(2.0)


def test_flora_restarts_with_new_a_and_zero_b(lab):
    method = get("flora")
    state = method.begin(lab.adapter())
    starts = []
    for number in (1, 2):
        state = play_round(method, state, crowd_of(lab), number)
        for layer, a, b in state.adapter.factors():
            assert not b[:, :4].any()
            assert 0.8 < np.abs(a[:4]).max() * np.sqrt(layer.d_in) <= 1.0
        starts.append(next(state.adapter.factors())[1][:4].copy())
    assert not np.allclose(*starts)


def test_fedex_trains_on_from_the_plain_average(lab):
    crowd = crowd_of(lab)
    one = play_round(get("fedex"), get("fedex").begin(lab.adapter()), crowd, 1).adapter
    other = play_round(get("fedavg"), get("fedavg").begin(lab.adapter()), crowd, 1).adapter
    for (_, a1, b1), (_, a2, b2) in zip(one.factors(), other.factors(), strict=True):
        assert np.allclose(a1[:4], a2, atol=1e-6)
        assert np.allclose(b1[:, :4], b2, atol=1e-6)


def test_growth_is_bounded(lab, monkeypatch):
    assert 2 * MAX_GROWN_RANK <= MAX_RANK  # what an announcement may carry
    monkeypatch.setattr("nomoat.aggregation.methods.plaintext.stacking.MAX_GROWN_RANK", 9)
    method = get("flora")
    state = method.begin(lab.adapter())
    for number in (1, 2):
        crowd = crowd_of(lab)
        wanted = lab.mean_dense(method, state, crowd, number)
        state = play_round(method, state, crowd, number)
    assert state.adapter.spec.rank == 9
    best = lab.best_of_rank(wanted, 5)
    assert lab.distance(lab.dense(state.adapter), best) <= 1e-5


@pytest.mark.parametrize(("name", "count"), [("flora", 1), ("fedex", 2)])
def test_a_rank_that_fills_the_bound_leaves_room_for_a_base_change_of_its_size(
    lab, monkeypatch, name, count
):
    monkeypatch.setattr("nomoat.aggregation.methods.plaintext.stacking.MAX_GROWN_RANK", 4)
    method = get(name)
    state = method.begin(lab.adapter())
    crowd = crowd_of(lab, count=count)
    wanted = lab.mean_dense(method, state, crowd)
    after = play_round(method, state, crowd, 1)
    assert lab.distance(lab.dense(after.adapter), wanted) <= 1e-5
    for number in (2, 3):
        after = play_round(method, after, crowd, number)
    assert after.adapter.spec.rank == 8


def test_fedask_is_exact_where_the_sketch_is_as_wide_as_the_rank(lab):
    """Two volunteers of rank 4 from a common start: rank(ΣBA) ≤ 8 ≤ 4 + 8."""
    method = get("fedask")
    state = method.begin(lab.adapter())
    crowd = crowd_of(lab, count=2)
    after = play_round(method, state, crowd, 1)
    best = lab.best_of_rank(lab.mean_dense(method, state, crowd), 4)
    assert lab.distance(lab.dense(after.adapter), best) <= 1e-5


def test_fedask_is_within_the_bound_of_randomised_svd(lab):
    """Halko et al. 2011, thm. 10.5: E‖M − QQᵀM‖ ≤ √(1 + r/(p − 1)) (Σ_{j>r} σⱼ²)^½; then
    truncating to rank r adds at most the best error once more."""
    method = FedAsk(oversampling=4)
    state = method.begin(lab.adapter())
    crowd = crowd_of(lab, count=8, size=0.3)
    wanted = lab.mean_dense(method, state, crowd)
    best = lab.best_of_rank(wanted, 4)
    tail = lab.distance(best, wanted)
    factor = np.sqrt(1 + 4 / 3) + 1
    errors = [
        lab.distance(lab.dense(play_round(method, state, crowd, 2 * n + 1).adapter), wanted)
        for n in range(10)
    ]
    assert min(errors) >= tail * (1 - 1e-6)
    assert np.mean(errors) <= factor * tail
    assert len({round(e, 9) for e in errors}) > 1  # another Ω each round


def test_fedask_and_flexlora_agree_on_the_default_width(lab):
    crowd = crowd_of(lab, count=3, size=0.05)
    pair = [
        lab.dense(play_round(get(n), get(n).begin(lab.adapter()), crowd, 1).adapter)
        for n in ("fedask", "flexlora")
    ]
    assert lab.distance(*pair) < 1e-2


def test_fedask_sends_differences(lab):
    method = get("fedask")
    state = method.begin(lab.adapter())
    local = method.start(state.adapter, LocalRound(1, 4))
    still = method.upload(local, local.adapter, 1, 1)
    assert not still.any()
    with pytest.raises(Exception, match="first one's reply"):
        method.upload(local, local.adapter, 1, 2)


def test_fedask_reply_is_orthonormal(lab):
    method = get("fedask")
    state = method.begin(lab.adapter())
    manifest = method.manifest(state.adapter.spec, 1, 1)
    reply = method.reply(state, np.zeros(manifest.size, np.float32), 1, 1)
    for basis in manifest.views(reply).values():
        assert np.allclose(basis.T @ basis, np.eye(basis.shape[1]), atol=1e-5)


@pytest.mark.parametrize("name", ["fedask", "flexlora", "flora", "fedex"])
def test_only_the_product_of_a_report_matters(lab, name):
    method = get(name)
    state = method.begin(lab.adapter())
    crowd = crowd_of(lab, count=3)
    turned = [Player(p.weight, p.rank, regauged(p.train, i)) for i, p in enumerate(crowd)]
    pair = [lab.dense(play_round(method, state, c, 1).adapter) for c in (crowd, turned)]
    assert lab.distance(*pair) < 1e-5


def test_a_plain_average_does_depend_on_the_gauge(lab):
    method = get("fedavg")
    state = method.begin(lab.adapter())
    crowd = crowd_of(lab, count=3)
    turned = [Player(p.weight, p.rank, regauged(p.train, i)) for i, p in enumerate(crowd)]
    pair = [lab.dense(play_round(method, state, c, 1).adapter) for c in (crowd, turned)]
    assert lab.distance(*pair) > 0.05


def test_fedex_refuses_mixed_ranks_and_flora_too_high_ones(lab):
    crowd = crowd_of(lab, ranks=(2, 4))
    with pytest.raises(Exception, match="every rank must be 4"):
        play_round(get("fedex"), get("fedex").begin(lab.adapter()), crowd, 1)
    state = play_round(get("flora"), get("flora").begin(lab.adapter()), crowd, 1)
    too_high = [Player(1.0, 6, lab.drift(0))]
    with pytest.raises(Exception, match="at most 4"):
        play_round(get("flora"), state, too_high, 2)
