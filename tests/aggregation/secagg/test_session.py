"""Whole sessions with honest volunteers: sums, dropouts at every boundary, complaints, costs."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from nomoat.aggregation.errors import LocalProtocolError, RemoteProtocolError
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.secagg.client import session as client
from nomoat.aggregation.secagg.labels import SIGN_SHARES
from nomoat.aggregation.secagg.masks import masking
from nomoat.aggregation.secagg.messages import BOX_BYTES, Abandoned, MaskedReport, RevealReport
from nomoat.aggregation.secagg.parameters import Policy
from nomoat.aggregation.secagg.server import session as server
from nomoat.aggregation.sums.fixed_point import ClipLayout, Contribution, FixedPoint
from nomoat.aggregation.sums.packing import packed_bytes

EXCHANGES = ("keys", "shares", "checks", "masked", "signatures", "reveals")


def check_sum(made, step, who):
    assert step.phase is server.ServerPhase.DONE
    assert step.result.participants == len(who)
    assert np.abs(step.result.mean - made.mean(who)).max() <= made.tolerance(who)


@pytest.mark.parametrize("count", [2, 3, 4, 7, 8, 13])
def test_every_volunteer_is_in_the_mean(federation, count):
    made = federation(count)
    check_sum(made, made.run(), set(range(count)))
    assert not made.refused
    assert not made.server.blamed


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_the_sum_survives_dropouts_at_every_boundary_down_to_exactly_t(federation, exchange):
    # "keys": they never join, and the session of the other six has its own, smaller, t.
    made = federation(8, n_min=6, drops={exchange: {1, 5}})
    step = made.run()
    summed_anyway = exchange in ("signatures", "reveals")
    check_sum(made, step, set(range(8)) if summed_anyway else set(range(8)) - {1, 5})


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_one_dropout_more_abandons_the_round_and_nothing_is_revealed(federation, exchange):
    made = federation(8, n_min=6, drops={exchange: {1, 3, 5}})
    step = made.run()
    assert step.phase is server.ServerPhase.ABANDONED
    assert step.result is None
    assert step.reason
    if exchange != "reveals":  # there, what was revealed are fewer than t shares of anything
        kinds = {wire.peek_kind(packet, "x") for sent in made.sent.values() for packet in sent}
        assert "sa.reveal" not in kinds
        assert not any(m.kind == "revealed" for marks in made.marks.values() for m in marks)
    for public, message in step.outgoing.items():
        assert isinstance(message, Abandoned)
        i = made.ids.index(public)
        if i not in made.silent:
            made.clients[i].receive(message)
            assert made.clients[i].over


def test_dropouts_spread_over_all_boundaries_of_a_sparse_graph(federation):
    made = federation(40, n_min=30, n_max=40, policy=Policy())
    made.drops = {"shares": {0}, "checks": {1, 2}, "masked": {3, 4, 5}, "signatures": {6}}
    step = made.run()
    assert made.server.phase is server.ServerPhase.DONE, step.reason
    check_sum(made, step, set(range(40)) - set(range(6)))


def test_a_sparse_graph_without_a_quorum_of_signatures_reveals_nothing(federation):
    """Every secret could be recovered from the 22 who signed, but 23 must have."""
    made = federation(40, n_min=30, policy=Policy(), drops={"signatures": set(range(18))})
    step = made.run()
    assert step.phase is server.ServerPhase.ABANDONED
    assert step.reason == "too few volunteers signed the list of survivors"


def test_a_dropouts_masked_vector_that_arrived_is_summed_even_if_it_never_comes_back(federation):
    made = federation(4, drops={"signatures": {2}})
    check_sum(made, made.run(), {0, 1, 2, 3})


def test_whoever_sends_an_undecryptable_share_leaves_the_sum_for_everyone(federation):
    def spoil(i, report):
        if i != 2:
            return report
        boxes = bytearray(report.boxes)
        boxes[4 * BOX_BYTES] ^= 1  # volunteer 5's box, signed all the same
        return sign_shares(made, 2, replace(report, boxes=bytes(boxes)))

    made = federation(8, up={"shares": spoil})
    step = made.run()
    assert made.server.complaints == {made.ids[5]: (made.ids[2],)}
    assert not made.refused
    check_sum(made, step, set(range(8)) - {2})


def sign_shares(made, i, report):
    body = (report.seed_commitment, report.own_commitment, report.boxes)
    transcript = made.server._collector._session.transcript
    return replace(report, signature=made.keys[i].sign(SIGN_SHARES, transcript, *body))


def test_a_new_session_can_be_opened_after_one_that_was_abandoned(federation):
    made = federation(8, drops={"checks": {0, 1, 2}})
    assert made.run().phase is server.ServerPhase.ABANDONED
    again = federation(8, seed=1)
    again.marks = made.marks  # the same diary: no update has left, each may go again
    again.clients = [again.client(i) for i in range(8)]
    check_sum(again, again.run(), set(range(8)))


def test_a_restarted_coordinator_leaves_its_volunteers_with_nothing_to_reveal(running):
    made, _ = running("signatures")
    restarted = server.ServerSession(made.offer, made.manifest, made.roster)
    step = restarted.open(made.ids)
    for client_session, message in zip(made.clients, step.outgoing.values(), strict=True):
        with pytest.raises(RemoteProtocolError):
            client_session.receive(message)
        assert client_session.over


def test_one_participant_is_no_session_and_one_too_many_is_refused(federation):
    made = federation(9, n_max=8)
    with pytest.raises(LocalProtocolError, match="more than the 8"):
        made.server.open(made.ids)
    alone = federation(2, drops={"keys": {1}})
    assert alone.run().phase is server.ServerPhase.ABANDONED


def test_half_an_upload_is_a_dropout_and_not_an_error_of_the_session(federation):
    def cut(i, report):
        return replace(report, masked=report.masked[:-26]) if i == 4 else report

    made = federation(8, up={"masked": cut})
    step = made.run()
    assert made.ids[4] in made.server.blamed
    check_sum(made, step, set(range(8)) - {4})


def test_bytes_up_are_the_packed_vector_and_at_most_200_per_neighbour(federation):
    made = federation(17, size=1 << 12, n_min=8)
    made.run()
    bits = made.offer.value_bits + 5  # ⌈log2 17⌉
    for packets in made.sent.values():
        up = sum(packet.size for packet in packets)
        assert up <= bits / 32 * 4 * made.size + 200 * 16


def test_a_client_holds_at_most_three_times_its_vector(federation):
    size = 3_000_000
    made = federation(2, size=size, n_min=2)
    made.clients[1] = made.client(1)
    step = made.run("masked")
    point_bytes = packed_bytes(size, made.offer.value_bits + 1)
    tracemalloc.start()
    reply = made.clients[0].receive(step.outgoing[made.ids[0]])
    packet = wire.encode(reply.outgoing)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(reply.outgoing, MaskedReport)
    assert len(packet.body) == point_bytes
    assert peak + 4 * size <= 3 * 4 * size


def test_the_coordinators_memory_does_not_grow_with_the_number_of_vectors():
    length, point = 1 << 20, FixedPoint(21, 64)
    total = masking.MaskedSum(length, point)
    packed = bytes(packed_bytes(length, point.wire_bits))
    total.add(packed)
    tracemalloc.start()
    for _ in range(8):
        total.add(packed)
    _, peak = tracemalloc.get_traced_memory()
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 100_000
    assert peak < 4 * length * 2


def test_an_update_with_a_nan_or_an_infinity_never_reaches_the_wire(federation):
    made = federation(2)
    for bad in (np.nan, np.inf, -np.inf):
        vector = made.vectors[0].copy()
        vector[5] = bad
        with pytest.raises(LocalProtocolError, match="NaN or an infinity"):
            Contribution(vector)
    late = made.vectors[0].copy()
    contribution = Contribution(late)
    late[5] = np.nan  # after it was checked
    layout, point = ClipLayout(made.manifest, made.clips), FixedPoint(21, 2)
    keys = masking.MaskKeys((bytes(32),), ())
    with pytest.raises(LocalProtocolError):
        masking.masked_vector(contribution, layout, point, bytes(32), keys)


def test_updates_beyond_the_clip_are_clamped_to_it(federation):
    made = federation(3)
    for i in range(3):
        made.vectors[i][0] = 10.0
    made.clients = [made.client(i) for i in range(3)]
    step = made.run()
    assert step.result.mean[0] == pytest.approx(made.clip, rel=1e-5)


def test_a_finished_volunteer_reports_the_marks_in_order(federation):
    made = federation(4)
    made.run()
    for marks in made.marks.values():
        assert [mark.kind for mark in marks] == ["joined", "masked", "signed", "revealed"]


def test_reveal_is_persisted_in_the_same_step_that_sends_it(running):
    made, step = running("reveals", 4)
    reply = made.clients[0].receive(step.outgoing[made.ids[0]])
    assert isinstance(reply.outgoing, RevealReport)
    assert [mark.kind for mark in reply.persist] == ["revealed"]
    assert made.clients[0].phase is client.ClientPhase.REVEALED
