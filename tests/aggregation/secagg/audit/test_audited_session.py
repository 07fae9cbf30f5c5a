"""An audited session: who is too large leaves, liars about masks are found, honest ones stay."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nomoat.aggregation.errors import LocalProtocolError, RemoteProtocolError
from nomoat.aggregation.secagg.audit.judgement import DOUBT, TOLERANCE
from nomoat.aggregation.secagg.audit.sketch import Signs, sketch_packed
from nomoat.aggregation.secagg.audit.terms import audited, norm_test, point_of
from nomoat.aggregation.secagg.client.session import ClientPhase
from nomoat.aggregation.secagg.messages import AuditOpening
from nomoat.aggregation.secagg.parameters import Policy
from nomoat.aggregation.secagg.server.collector import ServerPhase
from nomoat.aggregation.secagg.server.session import ServerSession
from nomoat.aggregation.sums.packing import pack
from tests.aggregation.secagg.audit.liars import BOUND, EVERYBODY, claim, session


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


@pytest.mark.parametrize(
    ("doubtful", "out"), [({3}, {3}), ({3, 6}, {3, 6}), ({1, 3, 6}, None), ({0, 1, 2, 3}, None)]
)
def test_who_is_in_doubt_is_set_aside_as_far_as_enough_are_left_and_nobody_is_named(
    federation, doubtful, out
):
    made = session(federation, doubtful, factor=1.35, size=400, seed=4)
    step = made.run()
    sizes = {made.ids.index(one): size for one, size in made.server.sizes.items()}
    assert {i for i, size in sizes.items() if size > DOUBT} == doubtful
    assert max(sizes.values()) < TOLERANCE
    left = out or set(sorted(doubtful, key=sizes.get)[-2:])  # of eight, six have to be left
    check(made, step, EVERYBODY - left)
    assert not made.server.blamed
    assert not made.server.proofs
    assert not made.refused


def test_nobody_is_set_aside_whom_a_module_that_few_have_trained_cannot_spare(federation):
    """Four of eight have trained the second module; three of them have to be left."""
    made = session(federation, n_min=4)
    made.run("sketches")
    progress = made.server._collector._progress
    members = tuple(
        replace(member, modules=b"\x03" if i < 4 else b"\x01")
        for i, member in enumerate(progress.session.members)
    )
    progress = replace(progress, session=replace(progress.session, members=members))
    for gone, can in (({4, 5}, True), ({0, 4}, True), ({0, 1}, False), ({4, 5, 6}, False)):
        assert progress.can_go_on_with(frozenset(EVERYBODY - gone)) is can


def test_whoever_is_too_large_leaves_before_those_in_doubt(federation):
    made = session(federation, {0, 1, 2}, factor=1.35, size=400)
    made.vectors[1] *= np.float32(3)
    made.vectors[2] *= np.float32(3)
    made.clients = [made.client(i) for i in range(8)]
    check(made, made.run(), EVERYBODY - {1, 2})
    assert names(made, made.server.blamed) == {1, 2}


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
    test = norm_test(made.offer, 8, made.size)
    scale = test.limit / BOUND
    ring = np.rint(made.vectors[i].astype(float) * scale / 2).astype(np.int64).astype(np.uint32)
    signs = Signs(opening.seed, made.clients[i]._stage.session.transcript)
    return sketch_packed(signs, pack(ring, 32), len(ring), 32)


def test_two_liars_who_agree_about_their_mask_share_what_they_have_and_hide_none_of_it(federation):
    """One passes on half of its excess: together they are no larger than two may be."""
    made = session(federation, {2}, factor=1.9, size=400)
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
    assert np.linalg.norm(made.vectors[2] + made.vectors[5]) < 2 * DOUBT * BOUND


def test_two_liars_one_of_whom_is_too_large_all_the_same_are_both_named(federation):
    made = session(federation, {2}, factor=8.0, size=400)
    first, second = claim(made, 2, pairs={5: 99}), claim(made, 5, pairs={2: 99})
    made.up = {"sketches": lambda i, report: second(i, first(i, report))}
    step = made.run()
    assert step.phase is ServerPhase.ABANDONED
    assert names(made, made.server.blamed) == {2, 5}


@pytest.mark.parametrize("ring", [(1, 4, 6), (0, 2, 5, 7)])
def test_a_ring_of_liars_moves_its_excess_around_and_none_of_it_goes_away(federation, ring):
    """Each tells the next that their mask is smaller: in a circle, where nobody honest is asked."""
    made = session(federation, ring, factor=8.0, size=400)
    shift = np.random.default_rng(1).integers(0, 2**32, 64, dtype=np.uint32)
    after = dict(zip(ring, (*ring[1:], ring[0]), strict=True))
    pairs = {i: {after[i]: shift} for i in ring}
    for i in ring:
        pairs[after[i]][i] = shift  # both ends of a pair say the same
    changes = [claim(made, i, pairs=pairs[i]) for i in ring]

    def up(i, report):
        for change in changes:
            report = change(i, report)
        return report

    made.up = {"sketches": up}
    step = made.run()
    assert names(made, made.server.blamed) == set(ring)
    assert step.phase is ServerPhase.ABANDONED


@pytest.mark.parametrize("ring", [(1, 4, 6), (0, 2, 5, 7)])
def test_a_ring_passes_only_if_its_sum_is_no_larger_than_so_many_may_be(federation, ring):
    """One has all of it and passes on a share to each: then it was allowed to begin with."""
    made = session(federation, ring[:1], factor=1.9, size=400)
    for i in ring[1:]:
        made.vectors[i][:] = 0.0
    made.clients = [made.client(i) for i in range(8)]
    share = {}

    def down(i, message):
        share.setdefault(0, half_of_the_sketch(made, ring[0], message))
        return message

    def up(i, report):
        if i == ring[0]:
            return claim(made, i, pairs={ring[1]: _towards(i, ring[1], share[0])})(i, report)
        if i == ring[1]:
            return claim(made, i, pairs={ring[0]: _towards(ring[0], i, share[0])})(i, report)
        return report

    made.down, made.up = {"sketches": down}, {"sketches": up}
    check(made, made.run(), EVERYBODY)
    total = sum(made.vectors[i] for i in ring)
    assert np.linalg.norm(total) < len(ring) * DOUBT * BOUND


def _towards(giver, taker, share):
    """What both say their mask has more than it has, so that `share` goes over to the taker."""
    return share if giver < taker else np.uint32(0) - share


def test_whoever_answers_the_audit_after_it_was_closed_changes_nothing(federation):
    made = session(federation)
    late = {}

    def up(i, report):
        if i == 3:
            late[3] = report
            return None
        return report

    made.up = {"sketches": up}
    made.run("signatures")
    before = made.server.members
    with pytest.raises(RemoteProtocolError, match="not expected"):
        made.server.receive(made.ids[3], late[3])
    assert made.server.members == before
    assert made.ids[3] not in made.server.members
    assert made.ids[3] in made.server.silent


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


def test_a_sketch_is_no_longer_than_the_owner_agreed_to(federation):
    made = session(federation)
    client = made.client(0, policy=Policy(2, allow_weak=True, audit_words=32))
    with pytest.raises(RemoteProtocolError, match=r"sketches of 64 words; .* agreed to 32"):
        client.receive(made.offer)


@pytest.mark.parametrize("changes", [{"clip_l2": 0.0}, {"clips": (0.05, 0.1)}, {"clip_l2": 9e5}])
def test_an_audit_that_cannot_be_is_refused_by_volunteers_and_never_offered(federation, changes):
    made = session(federation)
    offer = replace(made.offer, **changes)
    with pytest.raises(RemoteProtocolError, match="not one that can be"):
        made.client(0).receive(offer)
    plain = replace(offer, audit_kind=0, audit_commit=bytes(32))
    assert audited(plain, bytes(32)) == plain


@pytest.mark.parametrize("kind", [1, 64, 66, 255])
def test_sketches_of_another_kind_are_refused_before_anything_is_masked(federation, kind):
    made = session(federation)
    with pytest.raises(RemoteProtocolError, match=f"kind {kind}; this release makes .* kind 65"):
        made.client(0).receive(replace(made.offer, audit_kind=kind))


def test_a_coordinator_needs_the_seed_of_the_audit_it_offers(federation):
    made = session(federation)
    with pytest.raises(LocalProtocolError, match="commits to"):
        ServerSession(made.offer, made.manifest, made.roster)


@pytest.mark.parametrize(
    ("participants", "ratio", "value_bits"),
    [
        *((8, 54, 14), (8, 113, 14), (8, 114, 13), (8, 228, 12), (8, 455, 12)),
        *((17, 500, 13), (17, 1820, 12), (100, 1820, 14)),
    ],
)
def test_an_audited_coordinate_is_no_longer_than_one_without_an_audit(
    federation, participants, ratio, value_bits
):
    offer = replace(session(federation).offer, audit_kind=0, audit_commit=bytes(32))
    limit = ratio * offer.clips[0]
    plain = replace(offer, value_bits=21, n_max=participants, clip_l2=limit)
    asked = audited(plain, bytes(32))
    assert asked.value_bits == value_bits
    assert point_of(asked, participants).wire_bits <= point_of(plain, participants).wire_bits
