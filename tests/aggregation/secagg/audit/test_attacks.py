"""Attacks on an audit: by liars who know its arithmetic, and by a coordinator that wants more."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from nomoat.aggregation.errors import RemoteProtocolError
from nomoat.aggregation.secagg.audit.judgement import leaving
from nomoat.aggregation.secagg.audit.sketch import COLUMNS, RUN, Signs, sketch_packed
from nomoat.aggregation.secagg.audit.spread import effective_values
from nomoat.aggregation.secagg.audit.terms import audited, can_audit, point_of
from nomoat.aggregation.secagg.labels import SIGN_MASKED
from nomoat.aggregation.secagg.messages import MaskedReport
from nomoat.aggregation.secagg.parameters import Policy
from nomoat.aggregation.secagg.server.collector import ServerPhase
from nomoat.aggregation.sums.packing import pack, unpack
from tests.aggregation.secagg.audit.liars import EVERYBODY, claim, session
from tests.aggregation.secagg.audit.test_audited_session import check, names


def added(made, i, offsets):
    """A change of volunteer i's masked vector: coordinate → what is added to it, signed anew."""

    def change(sender, report):
        if sender != i or not isinstance(report, MaskedReport):
            return report
        bits = point_of(made.offer, made.count).wire_bits
        values = unpack(memoryview(report.masked), made.size, bits).copy()
        for where, offset in offsets(bits).items():
            values[where] += np.uint32(offset)
        masked = pack(values & np.uint32(2**bits - 1), bits)
        joined = made.clients[i]._stage
        digest = hashlib.sha256(masked).digest()
        to_sign = (joined.session.transcript, joined.shared, digest)
        return MaskedReport(made.keys[i].sign(SIGN_MASKED, *to_sign), masked)

    return change


def small_bound(federation, **options):
    """Sixteen volunteers whose bound is that of one value: a sketch needs few bits."""
    made = federation(16, bound=0.05, clip=0.05, **options)
    for i in range(16):
        made.vectors[i] *= np.float32(0.045 / np.linalg.norm(made.vectors[i]))
    made.clients = [made.client(i) for i in range(16)]
    return made


def test_what_wraps_around_in_every_word_of_a_sketch_gives_no_sum(federation):
    """Half of the ring at two coordinates is 0 in ±1 times each, added: no sketch shows it."""
    made = small_bound(federation)
    made.up = {"masked": added(made, 3, lambda bits: {5: 2 ** (bits - 1), 6: 2 ** (bits - 1)})}
    step = made.run()
    assert not made.server.blamed
    assert step.phase is ServerPhase.ABANDONED
    assert made.server.undecoded


def unseen(offsets, length, bits, seeds=64):
    """The number of seeds that see nothing of these offsets."""
    values = np.zeros(length, np.uint32)
    values[list(offsets)] = list(offsets.values())
    packed = pack(values, 32)
    found = [
        sketch_packed(Signs(bytes([i]) * 32, b"t" * 32), packed, length, 32) for i in range(seeds)
    ]
    return sum(not np.any(sketch & np.uint32(2**bits - 1)) for sketch in found)


def test_only_multiples_of_an_eighth_of_the_ring_go_unseen_more_than_once_in_a_while():
    bits, half = 20, 2**19
    spread = {of: [64 // of * p * COLUMNS for p in range(of)] for of in (4, 8, 16)}  # of one column
    assert unseen({0: half, 77: half}, RUN, bits) == 64
    assert unseen({0: half, RUN + 77: half}, 2 * RUN, bits) == 64
    assert 16 < unseen(dict.fromkeys(spread[4], half >> 1), RUN, bits) < 48
    assert unseen(dict.fromkeys(spread[8], half >> 2), RUN, bits) < 16
    assert unseen(dict.fromkeys(range(4), half >> 1), RUN, bits) == 0
    assert unseen(dict.fromkeys(spread[16], half >> 3), RUN, bits) == 0


def test_two_values_hide_each_other_only_where_both_are_in_one_bucket():
    """Which nobody can foretell: of 2^15 sessions in one, with opposite signs."""
    drawn = Signs(bytes(32), b"t" * 32).next(2 * RUN)
    there = (drawn.firsts[0] - drawn.firsts[1]) % RUN  # where a bucket's two runs have their values
    for at in range(40):
        pair = (at, RUN + (at + there) % RUN)
        signs = drawn.negated[list(pair)].tolist()
        hidden = unseen(dict.fromkeys(pair, 12345), 2 * RUN, 32, seeds=1)
        assert hidden == (signs[0] != signs[1])
        assert not unseen({pair[0]: 12345, (pair[1] + 1) % RUN + RUN: 12345}, 2 * RUN, 32, seeds=1)
    assert unseen({3: 12345, RUN + 9: 12345}, 2 * RUN, 32) == 0


@pytest.mark.parametrize("count", [2, 8, 16, 100, 1000])
@pytest.mark.parametrize("bound", [0.02, 0.05, 2.7])
def test_an_eighth_of_the_ring_more_makes_any_sum_an_impossible_one(federation, count, bound):
    plain = federation(2).offer
    offer = replace(plain, clips=(0.05, 0.05), clip_l2=bound, n_max=count)
    point = point_of(audited(offer, bytes(32)), count)
    assert 2 ** (point.wire_bits - 3) > 2 * point.most(count)


def test_no_audit_is_offered_whose_sums_do_not_fit(federation):
    plain = replace(federation(2).offer, clips=(0.05, 0.05), clip_l2=0.05)
    assert can_audit(replace(plain, value_bits=14, n_max=10_000))
    assert not can_audit(replace(plain, value_bits=24, n_max=100))


def test_a_liar_about_the_masks_of_as_many_as_may_be_corrupt_stops_no_session(federation):
    """With both ends of each dispute gone too few would be left, and nobody be named."""
    made = session(federation)
    made.up = {"sketches": claim(made, 4, pairs={1: 99, 2: 98})}
    check(made, made.run(), EVERYBODY - {4})
    assert names(made, made.server.blamed) == {4}


def test_two_liars_about_a_mask_each_are_named_whoever_leaves(federation):
    made = session(federation)
    first, second = claim(made, 4, pairs={1: 99}), claim(made, 6, pairs={2: 99})
    made.up = {"sketches": lambda i, report: second(i, first(i, report))}
    made.run()
    assert names(made, made.server.blamed) == {4, 6}


def test_no_two_stay_who_differ_and_nobody_leaves_for_one_who_leaves_anyway():
    disputes = [(0, 1), (0, 2), (3, 4)]
    assert leaving(disputes, set(), 2, 5) == {0, 1, 2, 3, 4}
    few = leaving(disputes, set(), 2, 2)
    assert len(few) == 2
    assert all(set(pair) & few for pair in disputes)
    assert leaving([(0, 1)], {0}, 2) == {0}


def told(made, i):
    """R·x of volunteer i and R, (64,) and (64, d), from what the coordinator has before it sums."""
    masked = {}
    made.up = {"masked": masked.setdefault}
    made.run("signatures")
    progress, bits = made.server._collector._progress, point_of(made.offer, 8).wire_bits
    claims, transcript = progress.claims[i], progress.session.transcript

    def sketch(packed, width):
        return sketch_packed(Signs(made.audit_seed, transcript), packed, made.size, width)

    left = sketch(masked[i].masked, bits) - claims.own
    for other, known in claims.pairs.items():
        left = left - known if other > i else left + known
    signed = np.left_shift(left, np.uint32(32 - bits)).view(np.int32) >> (32 - bits)
    units = np.eye(made.size, dtype=np.uint32)
    rows = [sketch(pack(unit, 32), 32).view(np.int32) for unit in units]
    return signed.astype(float), np.array(rows, float).T


def solved(made, i, moved):
    """Volunteer i's update as a coordinator finds it that knows which values can have moved."""
    sketch, rows = told(made, i)
    found = np.linalg.lstsq(rows[:, moved], sketch, rcond=None)[0]
    return found * made.clip / point_of(made.offer, 8).limit


CAREFUL = Policy(2, allow_weak=True, audit_words=64, audit_values=1024)


def test_of_no_more_values_than_a_sketch_has_words_it_tells_all_and_a_machine_refuses(federation):
    made = session(federation, size=40)
    found = solved(made, 2, np.arange(40))
    assert np.abs(found - made.vectors[2]).max() < 2 * made.tolerance(EVERYBODY)
    with pytest.raises(RemoteProtocolError, match="too much of an update of 40 values"):
        made.client(0, policy=CAREFUL, diary=()).receive(made.offer)


def test_an_adapter_from_which_few_values_move_makes_nobody_tell_them(federation):
    """The coordinator chose it so that 40 of 2 048 get a gradient."""
    moved = np.arange(40) * 50

    def made_with(policy):
        made = session(federation, size=2048)
        for i in range(8):
            vector = np.zeros(2048, np.float32)
            vector[moved] = made.rng.uniform(-0.02, 0.02, 40)
            made.vectors[i] = vector
        made.policy = policy or made.policy
        made.clients = [made.client(i) for i in range(8)]
        return made

    made = made_with(None)
    found = solved(made, 2, moved)
    assert np.corrcoef(found, made.vectors[2][moved])[0, 1] > 0.99
    made = made_with(CAREFUL)
    step = made.run()
    assert step.phase is ServerPhase.ABANDONED
    assert all("values have changed" in str(problem) for problem in made.refused.values())
    assert set(made.refused) == EVERYBODY
    assert not any(mark.kind == "masked" for marks in made.marks.values() for mark in marks)


def test_values_are_counted_by_their_weight():
    assert effective_values(np.ones(3000, np.float32)) == 3000
    few = np.zeros(3000, np.float32)
    few[:7] = -2.5
    assert effective_values(few) == 7
    drawn = np.random.default_rng(0).normal(size=300_000).astype(np.float32)
    assert effective_values(drawn) == pytest.approx(100_000, rel=0.05)
    assert effective_values(np.zeros(3, np.float32)) == float("inf")
