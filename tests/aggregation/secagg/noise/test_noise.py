"""Noise in a masked sum: each volunteer adds a share, and counts what it has given away."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from nomoat.aggregation.errors import LocalProtocolError, RemoteProtocolError
from nomoat.aggregation.secagg.audit.terms import audited, point_of
from nomoat.aggregation.secagg.diary import Mark
from nomoat.aggregation.secagg.messages import ShareSet
from nomoat.aggregation.secagg.noise.sampling import PART, NoiseStream
from nomoat.aggregation.secagg.noise.shares import room_for_rounding, share_of, with_noise
from nomoat.aggregation.secagg.parameters import NoiseRule, Policy, agreed_thresholds
from nomoat.aggregation.secagg.server.collector import ServerPhase
from nomoat.aggregation.secagg.server.session import ServerSession

BOUND, CLIP, SIZE = 0.15, 0.05, 2000


def noisy(federation, z=1.0, **options):
    """Eight volunteers in a session whose sum has noise of z times the bound."""
    made = federation(8, size=SIZE, clip=CLIP, **options)
    bounded = replace(made.offer, clips=(CLIP,) * 2, clip_l2=BOUND)
    made.offer = with_noise(bounded, z)
    for i in range(8):
        made.vectors[i] *= np.float32(0.99 * BOUND / np.linalg.norm(made.vectors[i]))
    made.server = ServerSession(made.offer, made.manifest, made.roster)
    made.clients = [made.client(i) for i in range(8)]
    return made


def signed(integers: np.ndarray) -> np.ndarray:
    return integers.view(np.int32).astype(float)


def test_noise_is_normal_with_the_deviation_that_was_asked_for() -> None:
    found = signed(NoiseStream(b"k" * 32, 500.0).integers(200_000)) / 500
    assert abs(found.mean()) < 5 / math.sqrt(len(found))
    assert found.std() == pytest.approx(1.0, abs=0.01)
    for beyond, share in ((1.0, 0.3173), (2.0, 0.0455), (3.0, 0.0027)):
        assert (abs(found) > beyond).mean() == pytest.approx(share, rel=0.1)
    assert abs(np.corrcoef(found[:100_000], found[100_000:])[0, 1]) < 0.02


def test_noise_goes_on_over_parts_and_another_key_draws_another() -> None:
    length = PART + 7
    first = NoiseStream(b"k" * 32, 50.0).integers(length)
    assert first.shape == (length,)
    assert np.array_equal(first, NoiseStream(b"k" * 32, 50.0).integers(length))
    assert not np.array_equal(first, NoiseStream(b"x" * 32, 50.0).integers(length))
    assert len(np.unique(first[PART:])) > 1
    assert len(NoiseStream(b"k" * 32, 50.0).integers(0)) == 0


@pytest.mark.parametrize("dropped", [set(), {2}], ids=["all", "after a dropout"])
def test_the_mean_has_the_noise_of_everybody_and_nothing_else(federation, dropped) -> None:
    made = noisy(federation, drops={"masked": dropped})
    step = made.run()
    assert step.phase is ServerPhase.DONE, step.reason
    who = set(range(8)) - dropped
    error = step.result.mean - made.mean(who)
    needed = agreed_thresholds(made.offer, 8)
    honest = needed.survivors - needed.corrupt
    expected = BOUND / math.sqrt(honest) * math.sqrt(len(who)) / len(who)
    assert error.std() == pytest.approx(expected, rel=0.1)
    assert abs(error.mean()) < 5 * expected / math.sqrt(SIZE)


def test_those_who_are_honest_make_enough_noise_alone(federation) -> None:
    """Whatever colluders know of their own shares: h others have z times the bound together."""
    made = noisy(federation, z=1.7)
    limit = point_of(made.offer, 8).limit
    needed = agreed_thresholds(made.offer, 8)
    share = share_of(made.offer, 8, limit).units
    together = share * math.sqrt(needed.survivors - needed.corrupt)
    assert together == pytest.approx(1.7 * BOUND / CLIP * limit)


def test_an_update_is_within_its_bound_when_it_is_rounded_too(federation) -> None:
    """The sensitivity is a bound, not an average: all coordinates may be rounded away from zero."""
    made = noisy(federation)
    limit = point_of(made.offer, 8).limit
    scaled = BOUND * room_for_rounding(made.offer, SIZE, limit) / CLIP * limit
    assert scaled + math.sqrt(SIZE) <= BOUND / CLIP * limit * (1 + 1e-12)
    with pytest.raises(LocalProtocolError, match="too fine"):
        room_for_rounding(replace(made.offer, clip_l2=1e-5), SIZE, limit)
    with pytest.raises(LocalProtocolError, match="too fine"):
        share_of(replace(made.offer, noise_multiplier=1e-6), 8, limit)


def test_an_update_beyond_the_bound_is_not_sent(federation) -> None:
    made = noisy(federation)
    made.vectors[3] *= np.float32(1.5)
    made.clients[3] = made.client(3)
    made.run("masked")
    with pytest.raises(LocalProtocolError, match="beyond its bound"):
        made.exchange("masked", 3, ShareSet(b"\xff"))


def test_a_sum_with_noise_never_overflows_the_bits_it_has(federation) -> None:
    for z in (0.5, 5.0, 50.0):
        made = noisy(federation, z=z)
        point = point_of(made.offer, 8)
        assert point.most(8) < 2 ** (point.wire_bits - 1)
        assert point.wire_bits <= 32
    with pytest.raises(LocalProtocolError, match="at most 32 fit"):
        point_of(replace(made.offer, noise_multiplier=1e6), 8)


RULE = NoiseRule(1.0, 2, 3)


def client(made, marks=(), **changes):
    policy = Policy(2, allow_weak=True, noise=replace(RULE, **changes))
    return made.client(0, policy=policy, diary=marks)


def mark(number, session):
    return Mark("masked", session * 32, number, 1, b"v" * 32, b"a" * 32)


def test_less_noise_than_agreed_none_or_a_sum_too_many_is_refused(federation) -> None:
    made = noisy(federation)
    assert client(made).receive(made.offer).outgoing is not None
    with pytest.raises(RemoteProtocolError, match=r"noise is 1 times the bound; 1\.2 was agreed"):
        client(made, multiplier=1.2).receive(made.offer)
    plain = replace(made.offer, noise_multiplier=0.0)
    with pytest.raises(RemoteProtocolError, match="noise is 0 times"):
        client(made).receive(plain)
    long_ago = (mark(-9, b"1"), mark(-5, b"2"))
    with pytest.raises(RemoteProtocolError, match="in 2 sums, which is all"):
        client(made, long_ago).receive(made.offer)
    with pytest.raises(RemoteProtocolError, match="3 rounds lie between"):
        client(made, (mark(1, b"1"),)).receive(made.offer)


def test_noise_without_a_bound_or_beside_an_audit_is_refused(federation) -> None:
    made = noisy(federation)
    for changes in ({"clip_l2": 0.0}, {"clips": (0.05, 0.1)}, {"audit_kind": 65}):
        policy = Policy(2, allow_weak=True, audit_words=64)
        with pytest.raises(RemoteProtocolError, match="no bound to be measured by"):
            made.client(0, policy=policy).receive(replace(made.offer, **changes))
    sketched = audited(replace(made.offer, noise_multiplier=0.0), b"s" * 32)
    with pytest.raises(LocalProtocolError, match="no audit"):
        with_noise(sketched, 1.0)
