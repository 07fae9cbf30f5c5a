"""The intake sums what the door would admit, refuses the rest in the same words, only later."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest

from nomoat.aggregation.errors import LocalProtocolError, RemoteProtocolError
from nomoat.aggregation.protocol.adapter import AdapterSpec, LayerSpec, as_bytes
from nomoat.aggregation.sums.admission import admit
from nomoat.aggregation.sums.exact_sum import ExactSum
from nomoat.aggregation.sums.intake import Intake
from nomoat.aggregation.sums.norm_bound import NormBound

SPEC = AdapterSpec((LayerSpec("q", 6, 5, 8), LayerSpec("v", 4, 7, 8)), 8, 16.0)
MANIFEST = SPEC.manifest


def report(seed: int, scale: float = 0.1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, scale, MANIFEST.size).astype(np.float32)


def spoilt(place: int, value: float) -> np.ndarray:
    vector = report(99)
    vector[place] = value
    return vector


UNSOUND = {
    "nan": spoilt(3, math.nan),
    "infinity": spoilt(MANIFEST.size - 1, -math.inf),
    "large": spoilt(50, 32.5),
    "overflow": spoilt(50, 3e38),
    "norm": np.full(MANIFEST.size, 20.0, np.float32),
}
MAX_NORM = 100.0


@pytest.mark.parametrize("kind", UNSOUND)
@pytest.mark.parametrize("place", [0, 4, 15, 16, 19])
def test_an_unsound_report_is_refused_as_the_door_does_and_leaves_no_trace(
    kind: str, place: int
) -> None:
    """Whether it comes first, in a batch with others, or last."""
    intake, refused = Intake.of(MANIFEST, max_norm=MAX_NORM), {}
    wanted = ExactSum.empty(MANIFEST.size)
    for index in range(20):
        vector, weight = UNSOUND[kind] if index == place else report(index), 1 / (index + 1)
        refused |= intake.add(f"v{index}", as_bytes(vector), weight)
        if index != place:
            wanted.add(vector, weight)
    refused |= intake.settle()
    with pytest.raises(RemoteProtocolError) as caught:
        admit(f"v{place}", as_bytes(UNSOUND[kind]), MANIFEST, 1.0, MAX_NORM)
    assert refused == {f"v{place}": caught.value.reason}
    assert intake.mean().tobytes() == wanted.mean().tobytes()


@pytest.mark.parametrize(("length", "weight"), [(-4, 1.0), (4, 1.0), (0, 0.0), (0, math.nan)])
def test_what_shows_at_once_is_refused_at_once(length: int, weight: float) -> None:
    body = as_bytes(report(0))
    intake = Intake.of(MANIFEST)
    with pytest.raises(RemoteProtocolError, match="mallory"):
        intake.add("mallory", (body + b"\0" * 8)[: len(body) + length], weight)
    assert intake.settle() == {}
    with pytest.raises(LocalProtocolError, match="no reports"):
        intake.mean()


def test_a_sender_is_never_judged_twice() -> None:
    intake = Intake.of(MANIFEST)
    intake.add("mallory", as_bytes(UNSOUND["nan"]), 1.0)
    assert list(intake.settle()) == ["mallory"]
    assert intake.settle() == {}


@pytest.mark.parametrize(
    ("reports_of_bytes", "waiting"), [(0.5, 1), (1, 1), (3, 3), (3.9, 3), (16, 16), (99, 16)]
)
def test_no_more_wait_than_their_number_or_bytes_allow(
    monkeypatch: pytest.MonkeyPatch, reports_of_bytes: float, waiting: int
) -> None:
    """And however few, the sum has the same bits."""
    most = int(reports_of_bytes * 4 * MANIFEST.size)
    monkeypatch.setattr("nomoat.aggregation.sums.intake._MAX_WAITING_BYTES", most)
    intake, wanted = Intake.of(MANIFEST), ExactSum.empty(MANIFEST.size)
    assert intake.add("mallory", as_bytes(UNSOUND["nan"]), 1.0) == {}
    for index in range(1, 21):
        refused = intake.add(f"v{index}", as_bytes(report(index)), 0.5)
        assert list(refused) == (["mallory"] if index == waiting else [])
        wanted.add(report(index), 0.5)
    assert intake.settle() == {}
    assert intake.mean().tobytes() == wanted.mean().tobytes()


def test_memory_does_not_grow_with_the_volunteers() -> None:
    """A coordinator with many volunteers must not hold all their reports at once."""
    manifest = AdapterSpec((LayerSpec("q", 4096, 4096, 8),), 8, 8.0).manifest
    tracemalloc.start()
    intake = Intake.of(manifest)
    for index in range(90):
        intake.add(f"v{index}", bytes(4 * manifest.size), 1.0)
    intake.settle()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * manifest.size + 18 * 4 * manifest.size + (8 << 20)
    assert not intake.mean().any()


def test_a_report_beyond_the_bound_counts_as_much_as_one_at_the_bound() -> None:
    bound = NormBound(1.0, MANIFEST.size)
    vectors = [report(0, 0.001), report(1, 5.0), report(2, 0.5)]
    intake = Intake.of(MANIFEST, bound=bound)
    for index, vector in enumerate(vectors):
        assert intake.add(f"v{index}", as_bytes(vector), 1.0) == {}
    assert intake.settle() == {}
    wanted = np.mean([bound.clip(vector) for vector in vectors], axis=0, dtype=np.float64)
    np.testing.assert_allclose(intake.mean(), wanted, atol=1e-7)


def test_a_bound_lets_nothing_in_that_is_refused_without_one() -> None:
    intake = Intake.of(MANIFEST, max_norm=MAX_NORM, bound=NormBound(1.0, MANIFEST.size))
    for kind, vector in UNSOUND.items():
        intake.add(kind, as_bytes(vector), 1.0)
    assert set(intake.settle()) == set(UNSOUND)
