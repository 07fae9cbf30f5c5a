"""The plain exchange: the exact mean of what is valid, whatever order it comes in."""

from __future__ import annotations

import itertools
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from nomoat.aggregation.errors import RemoteProtocolError
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.adapter import Manifest, TensorSpec, as_bytes
from nomoat.aggregation.protocol.messages import Decline, Report, ReportRequest
from nomoat.aggregation.sums.intake import Intake
from nomoat.server.rounds.machines.patience import Waiting
from nomoat.server.rounds.machines.plain_exchange import EachExchange, PlainExchange

MANIFEST = Manifest((TensorSpec("a", (2, 8)), TensorSpec("b", (3, 2))))
REQUEST = ReportRequest(2, 1, b"h" * 32)


def exchange(
    cohort: tuple[str, ...], minimum: int = 1, deadline_s: float = math.inf
) -> PlainExchange:
    return PlainExchange(cohort, REQUEST, Intake.of(MANIFEST), minimum, Waiting(deadline_s))


def report(vector: np.ndarray, weight: float = 1.0, number: int = 2, part: int = 1) -> wire.Packet:
    return wire.encode(Report(number, part, weight, as_bytes(vector)))


def ones(value: float) -> np.ndarray:
    return np.full(MANIFEST.size, value, np.float32)


def test_everyone_counts_the_same_and_the_mean_has_the_same_bits_in_every_order() -> None:
    rng = np.random.default_rng(1)
    names = ("ada", "bob", "cy", "dee")
    vectors = {n: rng.normal(0, 0.3, MANIFEST.size).astype(np.float32) for n in names}
    weights = dict(zip(names, (1.0, 0.1, 0.033, 1e-6), strict=True))
    means = []
    for order in itertools.permutations(names):
        found = exchange(names)
        found.start(0.0)
        for name in order:
            assert not found.done
            found.receive(name, report(vectors[name], weights[name]), 1.0)
        assert found.done
        assert found.contributors == names
        assert found.mean is not None
        means.append(found.mean.tobytes())
    assert len(set(means)) == 1
    expected = sum(vector.astype(np.float64) for vector in vectors.values()) / len(names)
    np.testing.assert_allclose(np.frombuffer(means[0], np.float32), expected, atol=1e-6)


def test_small_changes_of_many_volunteers_are_not_rounded_away() -> None:
    """Trap 5: fp16 loses 1.7 % of 1e-4 changes over 100 volunteers; here nothing of that size."""
    names = tuple(f"v{i:03d}" for i in range(100))
    rng = np.random.default_rng(2)
    vectors = rng.normal(0, 1e-4, (100, MANIFEST.size)).astype(np.float32)
    found = exchange(names)
    found.start(0.0)
    for name, vector in zip(names, vectors, strict=True):
        found.receive(name, report(vector), 1.0)
    assert found.mean is not None
    exact = vectors.astype(np.float64).mean(axis=0)
    assert np.abs(found.mean - exact).max() < 1e-6 * np.abs(exact).max()
    halved = vectors.astype(np.float16).mean(axis=0, dtype=np.float16)
    assert np.abs(halved - exact).max() > 1e-3 * np.abs(exact).max()  # what the test would catch


@pytest.mark.parametrize("bits", [16, 64])
def test_values_of_another_width_are_refused(bits: int) -> None:
    """Trap 5: half precision (and bf16, as long) or double is another length, never converted."""
    body = b"\0" * (MANIFEST.size * bits // 8)
    found = exchange(("ada",))
    found.start(0.0)
    with pytest.raises(RemoteProtocolError, match="ada"):
        found.receive("ada", wire.encode(Report(2, 1, 1.0, body)), 1.0)


@pytest.mark.parametrize(
    "bad",
    [
        report(ones(1.0), number=3),
        report(ones(1.0), part=2),
        report(ones(1.0)[:-1]),
        wire.encode(Decline(2, "paused")),
        wire.Packet(b""),
    ],
)
def test_what_is_refused_names_its_sender_and_is_not_in_the_sum(bad: wire.Packet) -> None:
    found = exchange(("ada", "bob"))
    found.start(0.0)
    with pytest.raises(RemoteProtocolError) as caught:
        found.receive("ada", bad, 1.0)
    assert caught.value.peer == "ada"
    found.leave("ada", "refused", 1.0)
    found.receive("bob", report(ones(0.5)), 1.0)
    assert found.contributors == ("bob",)
    assert found.mean is not None
    assert (found.mean == 0.5).all()


UNSOUND = [ones(math.nan), ones(-math.inf), ones(33.0)]


@pytest.mark.parametrize("vector", UNSOUND)
@pytest.mark.parametrize("last", [False, True])
def test_bad_values_are_refused_by_name_by_the_time_it_is_done(
    vector: np.ndarray, last: bool
) -> None:
    found = exchange(("ada", "bob"))
    found.start(0.0)
    if last:
        found.receive("bob", report(ones(0.5)), 1.0)
    found.receive("ada", report(vector), 1.0)
    if not last:
        found.receive("bob", report(ones(0.5)), 1.0)
    assert found.done
    assert list(found.refused) == ["ada"]
    assert found.contributors == ("bob",)
    assert found.mean is not None
    assert (found.mean == 0.5).all()


def test_bad_values_are_refused_by_name_while_others_are_waited_for() -> None:
    names = tuple(f"v{i:02d}" for i in range(20))
    found = exchange(names)
    found.start(0.0)
    found.receive("v00", report(ones(math.nan)), 1.0)
    for name in names[1:19]:
        found.receive(name, report(ones(0.5)), 1.0)
    assert list(found.refused) == ["v00"]
    assert not found.done


@pytest.mark.parametrize("vector", UNSOUND)
def test_the_only_report_being_bad_fails(vector: np.ndarray) -> None:
    found = exchange(("ada", "bob"))
    found.start(0.0)
    found.receive("ada", report(vector), 1.0)
    found.leave("bob", "gone", 2.0)
    assert found.failed == "0 of 1 reports valid"
    assert found.mean is None


def test_too_few_valid_reports_fail_and_say_how_many() -> None:
    found = exchange(("ada", "bob", "cy"), 3)
    found.start(0.0)
    for name in ("ada", "bob"):
        found.receive(name, report(ones(0.5)), 1.0)
    found.leave("cy", "gone", 1.0)
    assert found.done
    assert found.mean is None
    assert found.failed == "2 of 3 reports valid"


def test_at_the_deadline_it_closes_with_whoever_has_reported() -> None:
    found = exchange(("ada", "bob"), 1, 10.0)
    found.start(100.0)
    assert found.next_deadline == 110.0
    found.receive("ada", report(ones(0.5)), 101.0)
    found.wake(109.0)
    assert not found.done
    found.wake(110.0)
    assert found.contributors == ("ada",)
    mean = found.mean
    assert found.receive("bob", report(ones(9.0)), 111.0) == []
    assert found.mean is mean


def test_a_second_report_and_a_strangers_are_not_heard() -> None:
    found = exchange(("ada", "bob"))
    found.start(0.0)
    found.receive("ada", report(ones(0.5)), 1.0)
    found.receive("ada", report(ones(20.0)), 1.0)
    found.receive("mallory", report(ones(20.0)), 1.0)
    found.receive("bob", report(ones(0.5)), 1.0)
    assert found.contributors == ("ada", "bob")
    assert found.mean is not None
    assert (found.mean == 0.5).all()


def test_threads_give_the_same_bits() -> None:
    manifest = Manifest((TensorSpec("a", (50, 2**13)),))  # several stripes
    rng = np.random.default_rng(3)
    vectors = [rng.normal(0, 0.3, manifest.size).astype(np.float32) for _ in range(3)]
    means = []
    with ThreadPoolExecutor(4) as pool:
        for run in (map, pool.map):
            found = PlainExchange(("ada", "bob", "cy"), REQUEST, Intake.of(manifest, run), 3)
            found.start(0.0)
            for name, vector in zip(("cy", "ada", "bob"), vectors, strict=True):
                found.receive(name, report(vector, 0.7), 1.0)
            assert found.mean is not None
            means.append(found.mean.tobytes())
    assert means[0] == means[1]


MANIFESTS = {1: Manifest((TensorSpec("a", (1, 8)),)), 2: Manifest((TensorSpec("a", (2, 8)),))}


def each(ranks: dict[str, int], minimum: int = 1, deadline_s: float = math.inf) -> EachExchange:
    found = EachExchange(ranks, REQUEST, MANIFESTS, minimum, Waiting(deadline_s))
    assert [item.volunteer for item in found.start(0.0)] == sorted(ranks)
    return found


def test_uploads_are_kept_one_by_one_in_the_order_of_names_whatever_order_they_come_in() -> None:
    ranks = {"ada": 1, "bob": 2, "cy": 1}
    for order in itertools.permutations(ranks):
        found = each(ranks)
        for name in order:
            assert not found.done
            vector = np.full(8 * ranks[name], ord(name[0]) / 100, np.float32)
            found.receive(name, report(vector, ranks[name] / 4), 1.0)
        assert found.done
        assert found.mean is None
        assert found.contributors == ("ada", "bob", "cy")
        assert [(u.rank, u.weight) for u in found.uploads] == [(1, 1.0), (2, 1.0), (1, 1.0)]
        assert [u.vector[0] for u in found.uploads] == pytest.approx([0.97, 0.98, 0.99])


@pytest.mark.parametrize(
    "bad",
    [
        report(np.zeros(16, np.float32)),  # of the other rank
        report(np.full(8, math.nan, np.float32)),
        report(np.full(8, 1e9, np.float32)),
        report(np.zeros(8, np.float32), number=3),
        wire.encode(Decline(2, "paused")),
        wire.Packet(b""),
    ],
)
def test_an_upload_that_is_refused_names_its_sender_and_is_not_kept(bad: wire.Packet) -> None:
    found = each({"ada": 1, "bob": 2})
    with pytest.raises(RemoteProtocolError) as caught:
        found.receive("ada", bad, 1.0)
    assert caught.value.peer == "ada"
    found.leave("ada", "refused", 1.0)
    found.receive("bob", report(np.ones(16, np.float32)), 1.0)
    assert found.contributors == ("bob",)
    assert [upload.rank for upload in found.uploads] == [2]


def test_too_few_uploads_fail_and_a_deadline_closes_with_whoever_has_reported() -> None:
    found = each({"ada": 1, "bob": 2}, minimum=2, deadline_s=10.0)
    found.receive("ada", report(np.ones(8, np.float32)), 1.0)
    found.wake(10.0)
    assert found.failed == "1 of 2 reports valid"
    assert found.uploads == ()
