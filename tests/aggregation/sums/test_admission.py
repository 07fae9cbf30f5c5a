"""No report gets in that would spoil the sum, and each refusal names the volunteer."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from nomoat.aggregation.errors import RemoteProtocolError
from nomoat.aggregation.protocol.adapter import AdapterSpec, LayerSpec, as_bytes
from nomoat.aggregation.sums.admission import admit
from nomoat.aggregation.sums.exact_sum import ExactSum

RANK = 8
SPEC = AdapterSpec((LayerSpec("q", 6, 5, RANK), LayerSpec("v", 4, 7, RANK)), RANK, 16.0)
MANIFEST = SPEC.manifest


def values(seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, MANIFEST.size).astype(np.float32)


def refusal(call, *args, **options):
    with pytest.raises(RemoteProtocolError) as caught:
        call("mallory", *args, **options)
    assert caught.value.peer == "mallory"
    assert caught.value.section == "§4"
    assert str(caught.value).count("\n") == 0
    return caught.value.reason


def test_a_good_report_comes_out_as_it_went_in():
    admitted = admit("alice", as_bytes(values()), MANIFEST, 0.5)
    assert admitted.dtype == np.float32
    assert np.array_equal(admitted, values())
    assert not admitted.flags.writeable


@pytest.mark.parametrize("change", [-4, -1, 1, 4, -4 * MANIFEST.size])
def test_wrong_lengths_are_refused(change):
    body = as_bytes(values())
    body = body[:change] if change < 0 else body + b"\0" * change
    assert "bytes" in refusal(admit, body, MANIFEST, 0.5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 50, MANIFEST.size - 1])
def test_one_value_that_is_not_finite_is_refused_by_tensor(bad, place):
    vector = values()
    vector[place] = bad
    reason = refusal(admit, as_bytes(vector), MANIFEST, 0.5)
    name = next(n for n, s in MANIFEST.slices.items() if s.start <= place < s.stop)
    assert reason == f"{name} holds NaN or infinity"


def test_huge_values_are_refused_even_where_their_square_overflows():
    for huge in (33.0, -1e10, 3e38):
        vector = values()
        vector[3] = huge
        assert "a value of" in refusal(admit, as_bytes(vector), MANIFEST, 0.5)


def test_an_absurd_norm_is_refused():
    vector = np.full(MANIFEST.size, 20.0, np.float32)
    assert "norm" in refusal(admit, as_bytes(vector), MANIFEST, 0.5, max_norm=100.0)
    assert admit("alice", as_bytes(vector), MANIFEST, 0.5).size == MANIFEST.size


@pytest.mark.parametrize(
    "weight", [0.0, -5.0, 1e9, 1.0001, float("nan"), float("inf"), 1e-12, True, "1", None]
)
def test_absurd_weights_are_refused(weight):
    """Flower believes num-examples of 10⁹ and of −5."""
    assert "weight" in refusal(admit, as_bytes(values()), MANIFEST, weight)


def test_whatever_is_let_in_can_be_summed():
    """The door's limits lie within the sum's, so that no admitted report fails later."""
    edge = values()
    edge[:3] = 32.0, -32.0, np.float32(1e-45)
    ExactSum.empty(MANIFEST.size).add(admit("a", as_bytes(edge), MANIFEST, 1.0), 1.0)
    ExactSum.empty(MANIFEST.size).add(admit("a", as_bytes(edge), MANIFEST, 1e-9), 1e-9)


def test_threads_at_the_door_give_the_same_verdict(monkeypatch):
    monkeypatch.setattr("nomoat.aggregation.sums.exact_sum.BLOCK", 16)
    bad = values()
    bad[-1] = np.nan
    with ThreadPoolExecutor(4) as pool:
        admitted = admit("alice", as_bytes(values()), MANIFEST, 0.5, run=pool.map)
        assert np.array_equal(admitted, values())
        assert "NaN" in refusal(admit, as_bytes(bad), MANIFEST, 0.5, run=pool.map)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            huge = np.full_like(values(), 1e30)
            assert "value" in refusal(admit, as_bytes(huge), MANIFEST, 0.5, run=pool.map)
