"""An audited session: who is too large leaves, liars about masks are found, honest ones stay."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nomoat.aggregation.errors import LocalProtocolError, RemoteProtocolError
from nomoat.aggregation.secagg.audit.judgement import TOLERANCE
from nomoat.aggregation.secagg.audit.sketch import Signs, sketch_packed
from nomoat.aggregation.secagg.audit.terms import audited, norm_test
from nomoat.aggregation.secagg.client.session import ClientPhase
from nomoat.aggregation.secagg.labels import SIGN_SKETCH
from nomoat.aggregation.secagg.messages import AuditOpening, SketchReport
from nomoat.aggregation.secagg.parameters import Policy
from nomoat.aggregation.secagg.server.collector import ServerPhase
from nomoat.aggregation.secagg.server.session import ServerSession
from nomoat.aggregation.sums.packing import pack

BOUND = 0.15  # honest vectors of the fixture have .14
EVERYBODY = set(range(8))


def session(federation, large=(), factor=3.0, **options):
    """Eight volunteers, some with an update of `factor` times the bound."""
    made = federation(8, bound=BOUND, clip=0.05, **options)
    for i in range(8):
        made.vectors[i] *= np.float32(0.9 * BOUND / np.linalg.norm(made.vectors[i]))
    for i in large:
        # Beyond the clip of a value nothing is sent: so all values are as large as it allows.
        vector = np.sign(made.vectors[i]) * np.float32(min(0.05, factor * BOUND / made.size**0.5))
        made.vectors[i] = vector.astype(np.float32)
    made.clients = [made.client(i) for i in range(8)]
    return made


def claim(made, i, own=0, pairs=None, signed=True):
    """A change of volunteer i's sketches: numbers to add to word 0 of its own, of neighbours'."""

    def change(sender, report):
        if sender != i or not isinstance(report, SketchReport):
            return report
        joined = made.clients[i]._stage.session
        mine = np.frombuffer(report.own, "<u4").copy()
        mine[0] += np.uint32(own)
        others = np.frombuffer(report.pairs, "<u4").reshape(-1, 64).copy()
        for other, offset in (pairs or {}).items():
            row = others[[j for j in range(8) if j != i].index(other)]
            row += offset if isinstance(offset, np.ndarray) else np.uint32(offset)
        body = mine.tobytes(), others.tobytes()
        to_sign = (joined.transcript, made.clients[i]._stage.shared, *body)
        signature = made.keys[i].sign(SIGN_SKETCH, *to_sign) if signed else bytes(64)
        return SketchReport(*body, signature)

    return change


def names(made, people):
    return {made.ids.index(identity) for identity in people}


def check(made, step, who):
    assert step.phase is ServerPhase.DONE, step.reason
    assert step.result.participants == len(who)
    assert np.abs(step.result.mean - made.mean(who)).max() <= made.tolerance(who)


def test_honest_volunteers_are_all_in_the_sum_and_nobody_is_named(federation):
    made = session(federation)
    check(made, made.run(), EVERYBODY)
    assert not made.refused
    assert not made.server.blamed
    for marks in made.marks.values():
        kinds = [mark.kind for mark in marks]
        assert kinds == ["joined", "masked", "sketched", "signed", "revealed"]


@pytest.mark.parametrize("large", [{0}, {3, 6}])
def test_whoever_exceeds_the_bound_leaves_this_sum_by_name_and_the_others_are_summed(
    federation, large
):
    made = session(federation, large, size=400)
    step = made.run()
    check(made, step, EVERYBODY - large)
    assert names(made, made.server.blamed) == large
    assert all("times the bound" in reason for reason in made.server.blamed.values())


def test_too_many_too_large_ones_end_the_session_and_are_named(federation):
    made = session(federation, {0, 1, 2}, size=400)
    step = made.run()
    assert step.phase is ServerPhase.ABANDONED
    assert step.reason == "too few volunteers are left after the audit"
    assert names(made, made.server.blamed) == {0, 1, 2}


@pytest.mark.parametrize("exchange", ["sketches", "signatures", "reveals"])
def test_who_falls_silent_during_or_after_the_audit_is_a_dropout_like_any_other(
    federation, exchange
):
    made = session(federation, drops={exchange: {2}})
    out = {2} if exchange == "sketches" else set()
    check(made, made.run(), EVERYBODY - out)
    assert not made.server.blamed


def test_a_lie_about_ones_own_mask_is_found_when_it_is_revealed(federation):
    made = session(federation)
    made.up = {"sketches": claim(made, 4, own=12345)}
    step = made.run()
    assert step.phase is ServerPhase.ABANDONED
    assert step.reason == "a volunteer has lied to the audit"
    assert names(made, made.server.blamed) == {4}


def test_a_lie_about_a_pairs_mask_takes_both_ends_out_and_names_the_liar(federation):
    made = session(federation)
    made.up = {"sketches": claim(made, 4, pairs={1: 99})}
    check(made, made.run(), EVERYBODY - {1, 4})
    assert names(made, made.server.blamed) == {4}


def test_who_differs_from_more_than_may_be_corrupt_goes_alone(federation):
    made = session(federation)
    made.up = {"sketches": claim(made, 4, pairs={i: 7 for i in range(8) if i != 4})}
    check(made, made.run(), EVERYBODY - {4})
    assert names(made, made.server.blamed) == {4}


def half_of_the_sketch(made, i, opening):
    """Half of R·x of volunteer i, as close as it needs to be."""
    test = norm_test(made.offer, 8)
    scale = test.limit / BOUND
    ring = np.rint(made.vectors[i].astype(float) * scale / 2).astype(np.int64).astype(np.uint32)
    signs = Signs(opening.seed, made.clients[i]._stage.session.transcript)
    return sketch_packed(signs, pack(ring, 32), len(ring), 32)


def test_two_liars_who_agree_about_their_mask_share_what_they_have_and_hide_none_of_it(federation):
    """One passes on half of its excess: together they are no larger than two may be."""
    made = session(federation, {2}, factor=2.4, size=400)
    made.vectors[5][:] = 0.0
    made.clients = [made.client(i) for i in range(8)]
    shift = {}

    def down(i, message):
        if not shift:  # the two talk to each other
            shift[0] = half_of_the_sketch(made, 2, message)
        return message

    made.down = {"sketches": down}
    made.up = {
        "sketches": lambda i, report: (
            claim(made, i, pairs={7 - i: shift[0]})(i, report) if i in (2, 5) else report
        )
    }
    check(made, made.run(), EVERYBODY)
    assert not made.server.blamed
    assert np.linalg.norm(made.vectors[2] + made.vectors[5]) < 2 * TOLERANCE * BOUND


def test_two_liars_one_of_whom_is_too_large_all_the_same_are_both_named(federation):
    made = session(federation, {2}, factor=8.0, size=400)
    first, second = claim(made, 2, pairs={5: 99}), claim(made, 5, pairs={2: 99})
    made.up = {"sketches": lambda i, report: second(i, first(i, report))}
    step = made.run()
    assert step.phase is ServerPhase.ABANDONED
    assert names(made, made.server.blamed) == {2, 5}


def test_a_pair_mask_with_a_dropout_cannot_be_lied_about_either(federation):
    made = session(federation, drops={"masked": {1}})
    made.up = {"sketches": claim(made, 4, pairs={1: 2**20})}
    step = made.run()
    assert step.phase is ServerPhase.ABANDONED
    assert names(made, made.server.blamed) == {4}


def test_sketches_that_are_not_signed_or_not_all_there_put_their_sender_out(federation):
    made = session(federation)
    made.up = {"sketches": claim(made, 4, signed=False)}
    check(made, made.run(), EVERYBODY - {4})
    assert names(made, made.server.blamed) == {4}
    made = session(federation)
    made.up = {
        "sketches": lambda i, r: replace(r, pairs=r.pairs[:-256]) if i == 4 else r,
    }
    check(made, made.run(), EVERYBODY - {4})


def test_another_seed_than_the_committed_one_is_refused_and_nothing_is_sketched(federation):
    made = session(federation)
    made.down = {"sketches": lambda i, message: AuditOpening(b"x" * 32)}
    step = made.run()
    assert step.phase is ServerPhase.ABANDONED
    assert set(made.refused) == EVERYBODY
    assert all("committed to" in str(problem) for problem in made.refused.values())
    assert not any(mark.kind == "sketched" for marks in made.marks.values() for mark in marks)


def test_a_volunteer_sketches_once_in_a_session(federation):
    made = session(federation)
    made.run("signatures")
    assert made.clients[0].phase is ClientPhase.SKETCHED
    with pytest.raises(RemoteProtocolError, match="AuditOpening"):
        made.clients[0].receive(AuditOpening(made.audit_seed))
    assert made.clients[0].over


def test_an_audit_that_was_not_agreed_on_is_refused(federation):
    made = federation(4)
    made.run("signatures")
    with pytest.raises(RemoteProtocolError, match="not to be audited"):
        made.clients[0].receive(AuditOpening(bytes(32)))


def test_a_machine_joins_an_audited_session_only_if_its_owner_agreed(federation):
    made = session(federation)
    client = made.client(0, policy=Policy(2, allow_weak=True))
    with pytest.raises(RemoteProtocolError, match="has not agreed to"):
        client.receive(made.offer)


@pytest.mark.parametrize(
    "changes", [{"audit_words": 1}, {"clip_l2": 0.0}, {"clips": (0.05, 0.1)}, {"clip_l2": 9e5}]
)
def test_an_audit_that_cannot_be_is_refused_by_volunteers_and_never_offered(federation, changes):
    made = session(federation)
    offer = replace(made.offer, **changes)
    with pytest.raises(RemoteProtocolError, match="not one that can be"):
        made.client(0).receive(offer)
    plain = replace(offer, audit_words=0, audit_commit=bytes(32))
    if "audit_words" not in changes:
        assert audited(plain, bytes(32)) == plain


def test_a_coordinator_needs_the_seed_of_the_audit_it_offers(federation):
    made = session(federation)
    with pytest.raises(LocalProtocolError, match="commits to"):
        ServerSession(made.offer, made.manifest, made.roster)
