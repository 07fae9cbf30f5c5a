"""Rank-1 modules: chosen, put back and appended without changing what the adapter computes."""

from __future__ import annotations

import numpy as np
import pytest

from nomoat.aggregation.methods import modules
from nomoat.aggregation.methods.base import LocalRound
from nomoat.aggregation.methods.summed.fedavg import FedAvg
from nomoat.aggregation.protocol.adapter import Adapter


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("chosen", [(0,), (1, 3), (0, 1, 2)])
def test_modules_and_the_rest_add_up_to_the_whole(lab, rslora, chosen):
    whole = lab.adapter(rslora=rslora)
    rest = tuple(j for j in range(4) if j not in chosen)
    part, other = (lab.dense(modules.select(whole, some)) for some in (chosen, rest))
    both = {name: part[name] + other[name] for name in part}
    assert lab.distance(both, lab.dense(whole)) < 1e-6


def test_scatter_undoes_select(lab):
    whole, other = lab.adapter(), lab.adapter(seed=1)
    part = modules.select(whole, (3, 1))
    mixed = modules.scatter(other, part, (3, 1))
    for (_, a, b), (_, a0, b0), (_, a1, b1) in zip(
        mixed.factors(), whole.factors(), other.factors(), strict=True
    ):
        assert np.array_equal(a[[1, 3]], a0[[1, 3]])
        assert np.array_equal(b[:, [1, 3]], b0[:, [1, 3]])
        assert np.array_equal(a[[0, 2]], a1[[0, 2]])
        assert np.array_equal(b[:, [0, 2]], b1[:, [0, 2]])


@pytest.mark.parametrize("rslora", [False, True])
def test_appended_adapters_add_their_products(lab, rslora):
    one, other = lab.adapter(rslora=rslora), lab.adapter(seed=1, rslora=rslora)
    both = modules.append(one, modules.select(other, (0, 1)))
    added = lab.dense(modules.select(other, (0, 1)))
    wanted = {name: product + added[name] for name, product in lab.dense(one).items()}
    assert both.spec.rank == 6
    assert lab.distance(lab.dense(both), wanted) < 1e-6


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("rank", [1, 3, 7, 12, 512])
def test_alpha_survives_the_way_to_another_rank_and_back(lab, rslora, rank):
    spec = lab.spec(alpha=16.0, rslora=rslora)
    there = modules.same_scale(spec, rank)
    assert there.scale == pytest.approx(spec.scale, rel=1e-11)
    assert modules.same_scale(there, 4) == spec


def test_a_local_start_is_the_broadcast_model_whatever_the_rank(lab):
    broadcast = lab.adapter()
    for rank in (1, 2, 3, 4):
        local = FedAvg().start(broadcast, LocalRound(1, rank))
        assert local.adapter.spec.rank == rank
        assert (local.frozen is None) == (rank == 4)
        model = lab.dense(local.adapter)
        for name, product in lab.dense(local.frozen).items() if local.frozen else ():
            model[name] = model[name] + product
        assert lab.distance(model, lab.dense(broadcast)) < 1e-6


def test_training_a_part_leaves_the_rest_of_the_report_zero(lab):
    broadcast = lab.adapter()
    local = FedAvg().start(broadcast, LocalRound(1, 2))
    trained = Adapter(local.adapter.spec, local.adapter.vector + np.float32(0.1))
    report = Adapter(broadcast.spec, FedAvg().upload(local, trained, 1))
    for _, a, b in report.factors():
        assert np.allclose(a[:2], 0.1)
        assert np.allclose(b[:, :2], 0.1)
        assert not a[2:].any()
        assert not b[:, 2:].any()


def test_one_factor_out_and_in_again(lab):
    spec = lab.spec()
    vector = lab.adapter().vector
    halves = [modules.factor_manifest(spec, key) for key in ("a", "b")]
    whole = Adapter(spec, np.zeros(spec.size, np.float32))
    for half in halves:
        whole = modules.add(whole, modules.restrict(vector, spec, half), half)
    assert np.array_equal(whole.vector, vector)
    assert modules.factor_manifest(spec, "ab") == spec.manifest


def test_adding_a_change_leaves_what_it_is_added_to(lab):
    adapter = lab.adapter()
    before, part = adapter.vector.copy(), modules.factor_manifest(lab.spec(), "b")
    moved = modules.add(adapter, np.ones(part.size, np.float32), part)
    assert np.array_equal(adapter.vector, before)
    for (_, a, b), (_, old_a, old_b) in zip(moved.factors(), adapter.factors(), strict=True):
        assert np.array_equal(a, old_a)
        assert np.array_equal(b, old_b + 1)
