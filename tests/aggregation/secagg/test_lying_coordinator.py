"""What a coordinator that lies can do: nothing but stop the session. Each test is one lie."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from nomoat.aggregation.errors import RemoteProtocolError
from nomoat.aggregation.protocol.adapter import Manifest, TensorSpec
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.aggregation.secagg import labels
from nomoat.aggregation.secagg.client import session as client
from nomoat.aggregation.secagg.masks import keys
from nomoat.aggregation.secagg.masks.keys import SessionSecrets
from nomoat.aggregation.secagg.messages import (
    AddressedBox,
    Certificate,
    Participant,
    SharesDelivery,
    ShareSet,
    SurvivorSet,
)
from nomoat.aggregation.secagg.parameters import Policy, RosterView, propose
from nomoat.aggregation.secagg.server.session import ServerPhase
from nomoat.aggregation.secagg.transcript import from_bitmap, to_bitmap

LOW_ORDER = [
    bytes(32),
    (1).to_bytes(32, "little"),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    (2**255 - 20).to_bytes(32, "little"),
]  # RFC 7748 §6.1 via https://cr.yp.to/ecdh.html#validate


def refuses(session, message, words):
    """The message is refused for that reason, and the session is over with its secrets erased."""
    with pytest.raises(RemoteProtocolError, match=words) as caught:
        session.receive(message)
    assert session.over
    assert repr(session._secrets) == "<SessionSecrets erased>"
    assert session._stage is None
    return caught.value


def bits(made, *members):
    return to_bitmap(members, made.count)


# --- R0: the offer ------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["base_hash", "adapter_hash", "manifest_hash", "roster_root"])
def test_a_session_about_another_model_manifest_or_roster_is_refused(federation, field):
    made = federation(8)
    offer = replace(made.offer, **{field: bytes(32)})
    refuses(made.clients[0], offer, "another round or another model|other tensors|roster")


@pytest.mark.parametrize("field", ["round", "exchange"])
def test_a_session_about_another_round_or_exchange_is_refused(federation, field):
    made = federation(8)
    refuses(made.clients[0], replace(made.offer, **{field: 2}), "another round")


def test_clips_that_do_not_fit_the_manifest_are_refused(federation):
    made = federation(8)
    refuses(made.clients[0], replace(made.offer, clips=(0.1,)), "1 clip bounds for 2 tensors")


def test_a_ring_that_could_overflow_is_refused(federation):
    made = federation(8)
    offer = replace(made.offer, value_bits=24, n_max=256)
    refuses(made.clients[0], offer, "overflow the ring; at most 255 fit")


def test_a_session_smaller_than_the_pinned_minimum_is_refused(federation):
    made = federation(8)
    session = made.client(0, policy=Policy(min_participants=16))
    refuses(session, made.offer, "8 participants are fewer than this machine's 16")


@pytest.mark.parametrize(("weak", "policy"), [(False, Policy(2, True)), (True, Policy())])
def test_a_weak_session_needs_the_opt_in_of_both_sides(federation, weak, policy):
    made = federation(3)
    session = made.client(0, policy=policy)
    refuses(session, replace(made.offer, weak=weak), "3 participants are weak")


def test_a_session_that_assumes_fewer_corrupt_than_pinned_is_refused(federation):
    made = federation(8)
    refuses(made.clients[0], replace(made.offer, corrupt_permille=99), "fewer than 100‰ corrupt")


def test_different_offers_to_different_volunteers_end_in_refusal_by_all_of_them(federation):
    other_clips = (0.05, 0.2)

    def lie(i, offer):
        return replace(offer, clips=other_clips) if i % 2 else offer

    made = federation(8, down={"keys": lie})
    step = made.run()
    assert step.phase is ServerPhase.ABANDONED
    # … and if the coordinator itself plays along, volunteers check each other's signatures:
    made = federation(8)
    twin = federation(8)
    for i in range(8):
        made.clients[i].receive(replace(made.offer, clips=other_clips) if i % 2 else made.offer)
    members = tuple(
        Participant(made.ids[i], s.sent.box_key, s.sent.mask_key, s.sent.signature)
        for i, s in enumerate(c._stage for c in made.clients)
    )
    roster = replace(next(iter(twin.run("shares").outgoing.values())), members=members)
    for session in made.clients:
        refuses(session, roster, "not signed for this session")


# --- R0: the participants -----------------------------------------------------------------------


@pytest.fixture
def at_roster(running):
    made, step = running("shares")
    return made, step.outgoing[made.ids[0]]


def sorted_members(members):
    return tuple(sorted(members, key=lambda member: member.identity))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"neighbours": 6}, "need \\(7, 6, 6\\)"),
        ({"shares": 5}, "need \\(7, 6, 6\\)"),
        ({"shares": 1}, "need \\(7, 6, 6\\)"),
        ({"quorum": 5}, "need \\(7, 6, 6\\)"),
        ({"quorum": 1}, "need \\(7, 6, 6\\)"),
    ],
)
def test_k_t_and_q_cannot_be_lowered(at_roster, change, words):
    made, roster = at_roster
    refuses(made.clients[0], replace(roster, **change), words)


def test_n_cannot_be_lowered_below_what_was_offered(at_roster):
    made, roster = at_roster
    fewer = replace(roster, members=roster.members[:7], neighbours=6, shares=5, quorum=5)
    refuses(made.clients[0], fewer, "7 participants, agreed were 8 to 8")


def test_n_max_cannot_be_exceeded(running):
    made, step = running("shares", 9, n_max=9)
    roster = step.outgoing[made.ids[0]]
    session = made.client(0, diary=())
    session.receive(replace(made.offer, n_max=8))
    refuses(session, roster, "9 participants, agreed were 8 to 8")


def test_leaving_a_volunteer_out_of_its_own_session_is_refused(running):
    made, step = running("shares", 9, n_min=8)
    roster = step.outgoing[made.ids[0]]
    without = replace(roster, members=roster.members[1:], neighbours=7, shares=6, quorum=6)
    refuses(made.clients[0], without, "leaves this volunteer out")


def test_exchanging_the_volunteers_own_keys_is_refused(at_roster):
    made, roster = at_roster
    forged = replace(roster.members[0], mask_key=keys.public_of(bytes(32)))
    changed = replace(roster, members=(forged, *roster.members[1:]))
    refuses(made.clients[0], changed, "keys were exchanged")


def test_swapping_two_volunteers_keys_is_refused(at_roster):
    made, roster = at_roster
    one, two = roster.members[1:3]
    swapped = (replace(two, identity=one.identity), replace(one, identity=two.identity))
    changed = replace(roster, members=(roster.members[0], *swapped, *roster.members[3:]))
    refuses(made.clients[0], changed, "the keys of volunteer 1 are not signed")


def test_replacing_anothers_key_by_the_coordinators_own_is_refused(at_roster):
    made, roster = at_roster
    forged = replace(roster.members[4], mask_key=keys.public_of(bytes(32)))
    changed = replace(roster, members=(*roster.members[:4], forged, *roster.members[5:]))
    refuses(made.clients[0], changed, "the keys of volunteer 4 are not signed")


def test_a_volunteer_that_is_not_of_the_community_is_refused(at_roster):
    made, roster = at_roster
    stranger = replace(roster.members[4], identity=SigningKey(bytes(32)).public)
    members = sorted_members((*roster.members[:4], stranger, *roster.members[5:]))
    refuses(made.clients[0], replace(roster, members=members), "1 participants are not of the")


def test_listing_a_volunteer_twice_or_out_of_order_is_refused(at_roster):
    made, roster = at_roster
    twice = (*roster.members[:7], roster.members[6])
    refuses(made.clients[0], replace(roster, members=twice), "one is there twice")
    turned = roster.members[::-1]
    refuses(made.clients[1], replace(roster, members=turned), "not in order")


def test_one_key_for_two_volunteers_is_refused(at_roster):
    made, roster = at_roster
    same = replace(roster.members[3], box_key=roster.members[2].box_key)
    changed = replace(roster, members=(*roster.members[:3], same, *roster.members[4:]))
    refuses(made.clients[0], changed, "two participants have the same key")


def with_signed_key(made, roster, key):
    """The roster with volunteer 3's mask key replaced, by volunteer 3 itself."""
    offered = made.clients[0]._stage.offered
    member = roster.members[3]
    signature = made.keys[3].sign(labels.SIGN_KEYS, offered, member.box_key, key, member.modules)
    weak = replace(member, mask_key=key, signature=signature)
    return replace(roster, members=(*roster.members[:3], weak, *roster.members[4:]))


@pytest.mark.parametrize("key", LOW_ORDER)
def test_a_key_of_low_order_is_refused_and_its_owner_named(at_roster, key):
    made, roster = at_roster
    problem = refuses(made.clients[0], with_signed_key(made, roster, key), "low order")
    assert problem.peer == "volunteer 3"


@pytest.mark.parametrize("alias", [lambda u: u | 1 << 255, lambda _: 2**255 - 19 + 9])
def test_another_spelling_of_a_key_is_refused(at_roster, alias):
    made, roster = at_roster
    key = alias(int.from_bytes(roster.members[3].mask_key, "little")).to_bytes(32, "little")
    problem = refuses(made.clients[0], with_signed_key(made, roster, key), "not a canonical")
    assert problem.peer == "volunteer 3"


def test_too_few_long_known_peers_are_refused(running):
    made, step = running("shares")
    terms = replace(made.terms, known=frozenset(made.ids[:4]))
    for wanted, accepted in ((3, True), (4, False)):
        session = made.client(0, terms=terms, policy=Policy(known_peers=wanted), diary=())
        session.receive(made.offer)
        if accepted:
            assert session.receive(step.outgoing[made.ids[0]]).outgoing
        else:
            refuses(session, step.outgoing[made.ids[0]], "only 3 participants are long known")


def test_keys_of_an_earlier_session_are_refused(federation, running):
    first, step = running("shares")
    old = step.outgoing[first.ids[0]].members
    made = federation(8)  # the same people …
    made.offer = propose(b"\x01" * 32, made.terms, made.clips, (8, 8))  # … in another session
    session = made.clients[0]
    sent = session.receive(made.offer).outgoing
    mine = Participant(made.ids[0], sent.box_key, sent.mask_key, sent.signature)
    roster = replace(step.outgoing[first.ids[0]], members=(mine, *old[1:]))
    refuses(session, roster, "the keys of volunteer 1 are not signed for this session")


def test_a_session_that_was_joined_before_is_never_joined_again(federation):
    made = federation(8)
    made.run("masked")
    assert made.marks[0]
    restarted = made.client(0)  # the diary is what is on disk
    refuses(restarted, made.offer, "has taken part in that session before")


# --- R1: boxes ----------------------------------------------------------------------------------


@pytest.fixture
def at_delivery(running):
    made, step = running("checks")
    return made, step.outgoing[made.ids[0]]


@pytest.mark.parametrize("sources", [[1, 1], [2, 1], [0, 1]])
def test_boxes_repeated_out_of_order_or_from_oneself_are_refused(at_delivery, sources):
    made, delivery = at_delivery
    by_source = {a.source: a for a in delivery.boxes}
    boxes = tuple(by_source.get(i, AddressedBox(i, bytes(120))) for i in sources)
    refuses(made.clients[0], SharesDelivery(boxes), "out of order, repeated, or not from neigh")


def test_a_box_from_someone_who_is_not_a_neighbour_is_refused(running):
    made, step = running("checks", 40, n_min=30)
    delivery = step.outgoing[made.ids[0]]
    near = {a.source for a in delivery.boxes}
    stranger = next(i for i in range(1, 40) if i not in near)
    boxes = sorted((*delivery.boxes, AddressedBox(stranger, bytes(120))), key=lambda a: a.source)
    refuses(made.clients[0], SharesDelivery(tuple(boxes)), "not from neighbours")


@pytest.mark.parametrize("where", [0, 40, 87, 88, 119])
def test_a_changed_box_is_complained_about(at_delivery, where):
    made, delivery = at_delivery
    changed = bytearray(delivery.boxes[2].box)
    changed[where] ^= 128
    boxes = list(delivery.boxes)
    boxes[2] = replace(boxes[2], box=bytes(changed))
    report = made.clients[0].receive(SharesDelivery(tuple(boxes))).outgoing
    assert report.complaints == (delivery.boxes[2].source,)


def test_a_box_made_for_another_or_by_another_is_complained_about(running):
    made, step = running("checks")
    mine = step.outgoing[made.ids[0]].boxes
    yours = {a.source: a for a in step.outgoing[made.ids[1]].boxes}
    for_another = tuple(yours[a.source] if a.source > 1 else a for a in mine)
    report = made.clients[0].receive(SharesDelivery(for_another)).outgoing
    assert report.complaints == tuple(range(2, 8))
    theirs = step.outgoing[made.ids[2]].boxes
    moved = tuple(AddressedBox(a.source, b.box) for a, b in zip(theirs, theirs[::-1], strict=True))
    report = made.clients[2].receive(SharesDelivery(moved)).outgoing
    assert len(report.complaints) >= 6  # the middle one of seven stays where it was


# --- R2: U2 -------------------------------------------------------------------------------------


@pytest.fixture
def at_share_set(running):
    made, _ = running("masked")
    return made


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ((1, 2, 3, 4, 5, 6, 7), "leaves this volunteer out"),
        ((0, 1, 2, 3, 4), "5 of 6 needed have shared"),
    ],
)
def test_a_share_set_without_oneself_or_too_small_is_refused(at_share_set, members, words):
    made = at_share_set
    refuses(made.clients[0], ShareSet(bits(made, *members)), words)


@pytest.mark.parametrize("bitmap", [b"\xff\x01", b"\xff\xff"])
def test_a_set_of_the_wrong_length_is_refused(at_share_set, bitmap):
    made = at_share_set
    refuses(made.clients[0], ShareSet(bitmap), "has 2 bytes for 8 volunteers")


def test_a_set_that_names_unknown_volunteers_is_refused(running):
    made, step = running("masked", 9)
    assert step.outgoing
    refuses(made.clients[0], ShareSet(b"\xff\x03"), "not of this session")
    made, _ = running("signatures", 9)
    refuses(made.clients[0], SurvivorSet(b"\xff\x81"), "not of this session")


def test_ignoring_a_complaint_is_refused(running):
    made, step = running("checks")
    boxes = list(step.outgoing[made.ids[0]].boxes)
    boxes[2] = replace(boxes[2], box=bytes(120))
    complaints = made.clients[0].receive(SharesDelivery(tuple(boxes))).outgoing.complaints
    assert complaints == (3,)
    refuses(made.clients[0], ShareSet(bits(made, *range(8))), "shares this volunteer does not")


def test_withholding_a_box_and_counting_its_maker_in_is_refused(running):
    made, step = running("checks")
    boxes = step.outgoing[made.ids[0]].boxes[:-1]
    made.clients[0].receive(SharesDelivery(boxes))
    refuses(made.clients[0], ShareSet(bits(made, *range(8))), "shares this volunteer does not")


# --- R3: U3 -------------------------------------------------------------------------------------


@pytest.fixture
def at_survivors(running):
    made, _ = running("signatures")
    return made


def test_a_survivor_set_that_declares_the_volunteer_itself_dead_is_refused(at_survivors):
    made = at_survivors
    refuses(made.clients[0], SurvivorSet(bits(made, *range(1, 8))), "leaves this volunteer out")


def test_a_survivor_set_below_the_minimum_is_refused(at_survivors):
    made = at_survivors
    refuses(made.clients[0], SurvivorSet(bits(made, *range(5))), "5 survive of 6 needed")


def test_a_survivor_who_never_shared_is_refused(running):
    made, step = running("masked")
    without = bits(made, *range(7))
    made.clients[0].receive(ShareSet(without))
    assert step.outgoing
    refuses(made.clients[0], SurvivorSet(bits(made, *range(8))), "someone who is not in U2")


def test_declaring_a_volunteers_neighbours_dead_is_refused(running):
    """With all of them gone, its pairwise masks could be taken out of its own vector."""
    made, step = running("signatures", 40, n_min=30)
    needed = made.clients[0]._stage.session.needed
    near = made.clients[0]._stage.session.neighbours
    gone = near[: len(near) - needed.alive + 1]
    assert step.outgoing
    small = replace(needed, survivors=2)  # as if δ allowed for that many dropouts
    stage = made.clients[0]._stage
    made.clients[0]._stage = replace(stage, session=replace(stage.session, needed=small))
    survivors = set(range(40)) - set(gone)
    words = f"{needed.alive - 1} neighbours survive of {needed.alive} needed"
    refuses(made.clients[0], SurvivorSet(bits(made, *survivors)), words)


def test_a_second_survivor_set_is_not_signed(at_survivors):
    made = at_survivors
    session = made.clients[0]
    assert session.receive(SurvivorSet(bits(made, *range(8)))).outgoing
    refuses(session, SurvivorSet(bits(made, *range(7))), "sent SurvivorSet to a volunteer that")


def test_two_survivor_sets_cannot_both_be_certified(running):
    """Half of the volunteers are shown one U3, half another: neither half reveals anything."""
    made, _ = running("signatures")
    shown = [bits(made, *range(8)) if i < 4 else bits(made, *range(1, 8)) for i in range(8)]
    signatures = {
        i: made.clients[i].receive(SurvivorSet(shown[i])).outgoing.signature for i in range(8)
    }
    everybody = Certificate(bits(made, *range(8)), b"".join(signatures.values()))
    refuses(made.clients[0], everybody, "signature that is not valid")
    half = Certificate(bits(made, 4, 5, 6, 7), b"".join(signatures[i] for i in range(4, 8)))
    refuses(made.clients[4], half, "4 signatures of the 6 needed")


def test_volunteers_with_different_share_sets_cannot_certify_together(running):
    made, _ = running("masked")
    for i in range(8):
        made.clients[i].receive(ShareSet(bits(made, *range(8 if i < 4 else 7), i)))
    survivors = bits(made, *range(7))
    signatures = [
        made.clients[i].receive(SurvivorSet(survivors)).outgoing.signature for i in range(7)
    ]
    certificate = Certificate(survivors, b"".join(signatures))
    refuses(made.clients[0], certificate, "signature that is not valid")


# --- R4: the certificate ------------------------------------------------------------------------


@pytest.fixture
def at_certificate(running):
    made, step = running("reveals")
    return made, step.outgoing[made.ids[0]]


def test_a_certificate_of_fewer_than_q_is_refused(at_certificate):
    made, certificate = at_certificate
    assert len(certificate.signatures) == 6 * 64
    fewer = Certificate(bits(made, *range(5)), certificate.signatures[: 5 * 64])
    refuses(made.clients[0], fewer, "5 signatures of the 6 needed")


def test_shortened_or_padded_signatures_are_refused(at_certificate):
    made, certificate = at_certificate
    short = replace(certificate, signatures=certificate.signatures[:-1])
    refuses(made.clients[0], short, "not one signature per signer")
    long = replace(certificate, signatures=certificate.signatures + bytes(64))
    refuses(made.clients[1], long, "not one signature per signer")


def test_a_forged_signature_is_refused(at_certificate):
    made, certificate = at_certificate
    forged = bytearray(certificate.signatures)
    forged[5 * 64 + 3] ^= 1
    refuses(made.clients[0], replace(certificate, signatures=bytes(forged)), "not valid")


def test_one_signature_counted_twice_is_refused(at_certificate):
    made, certificate = at_certificate
    double = certificate.signatures[:64] * 6
    refuses(made.clients[0], replace(certificate, signatures=double), "not valid")


def test_a_signer_who_is_not_a_survivor_is_refused(running):
    made, step = running("reveals", 8, drops={"masked": {7}})
    certificate = step.outgoing[made.ids[0]]
    signers = from_bitmap(certificate.signers, 8)
    outside = Certificate(bits(made, *(signers - {0}), 7), certificate.signatures)
    refuses(made.clients[0], outside, "someone who is not among the survivors")


def test_a_certificate_of_another_session_is_refused(at_certificate, federation):
    made, _ = at_certificate
    other = federation(8, seed=9)
    step = other.run("reveals")
    refuses(made.clients[0], step.outgoing[other.ids[0]], "not valid")


def test_both_shares_of_one_peer_cannot_be_asked_for(at_certificate):
    """One certificate, one answer: after it the session is over, whatever is asked."""
    made, certificate = at_certificate
    session = made.clients[0]
    revealed = session.receive(certificate).outgoing.shares
    assert len(revealed) == 8 * 36  # one share each, its own among them
    with pytest.raises(RemoteProtocolError, match="sent Certificate to a volunteer that revealed"):
        session.receive(certificate)
    with pytest.raises(RemoteProtocolError):
        session.receive(SurvivorSet(bits(made, *range(7))))
    assert session.phase is client.ClientPhase.REVEALED


def test_which_share_is_revealed_follows_from_the_survivor_set(running):
    made, step = running("reveals", 8, drops={"masked": {7}})
    session = made.clients[0]
    held = dict(session._stage.masked.held)
    revealed = session.receive(step.outgoing[made.ids[0]]).outgoing.shares
    for i in range(8):
        share = revealed[36 * i : 36 * i + 36]
        assert share == (held[i].key if i == 7 else held[i].seed)


def test_a_restarted_volunteer_does_not_answer_a_replayed_certificate(at_certificate):
    made, certificate = at_certificate
    made.marks[0].extend(made.clients[0].receive(certificate).persist)
    restarted = made.client(0)
    refuses(restarted, certificate, "sent Certificate to a volunteer that waiting for an offer")
    restarted = made.client(0)
    refuses(restarted, made.offer, "taken part in that session before")


@pytest.mark.parametrize("until", ["", "reveals", "signatures"])
def test_an_update_that_has_left_is_in_no_other_session_of_its_round_or_version(federation, until):
    """Whether or not its sender heard of a sum: others may have revealed what it takes."""
    made = federation(8)
    made.run(until)
    again = propose(b"\x07" * 32, made.terms, made.clips, (8, 8))
    refuses(made.client(0), again, "has left already")
    later = replace(made.terms, round=4)
    refuses(made.client(0, terms=later), replace(again, round=4), "has left already")
    later = replace(made.terms, round=4, version=b"v" * 32)
    accepted = made.client(0, terms=later).receive(replace(again, round=4))
    assert accepted.outgoing


# --- any time -----------------------------------------------------------------------------------


def test_skipping_an_exchange_is_refused(running):
    made, step = running("masked")
    refuses(made.clients[0], SurvivorSet(bits(made, *range(8))), "sent SurvivorSet to a volunteer")
    assert step.outgoing


def test_going_back_to_an_earlier_exchange_is_refused(running):
    made, step = running("signatures")
    refuses(made.clients[0], ShareSet(bits(made, *range(8))), "sent ShareSet to a volunteer")
    refuses(made.clients[1], made.offer, "sent SessionOffer to a volunteer")
    assert step.outgoing


def test_a_roster_shown_to_one_only_makes_boxes_and_masks_that_fit_nobody(running):
    """Volunteer 0 is shown eight of nine participants; nobody can read what it then sends."""
    made, step = running("shares", 9, n_min=8)
    full = step.outgoing[made.ids[0]]
    eight = replace(full, members=full.members[:8], neighbours=7, shares=6, quorum=6)
    first = made.clients[0].receive(eight).outgoing
    second = made.clients[1].receive(full).outgoing
    from_first = AddressedBox(0, first.boxes[:120])
    report = made.clients[1].receive(SharesDelivery((from_first,))).outgoing
    assert report.complaints == (0,)
    from_second = AddressedBox(1, second.boxes[:120])
    report = made.clients[0].receive(SharesDelivery((from_second,))).outgoing
    assert report.complaints == (1,)


def test_another_manifest_of_the_same_length_is_refused(federation):
    made = federation(8)
    other = Manifest((TensorSpec("b", (2, 2)), TensorSpec("a", (20,))))
    terms = replace(made.terms, manifest=other)
    refuses(made.client(0, terms=terms), made.offer, "sums other tensors than were trained")


def test_a_roster_log_this_machine_does_not_know_is_refused(federation):
    made = federation(8)
    terms = replace(made.terms, roster=RosterView(b"\x01" * 32, made.names))
    refuses(made.client(0, terms=terms), made.offer, "roster is not the one this machine knows")


def test_no_refusal_repeats_a_secret(at_certificate):
    made, certificate = at_certificate
    forged = replace(certificate, signatures=bytes(6 * 64))
    problem = refuses(made.clients[0], forged, "not valid")
    assert re.fullmatch(r"[\x20-\x7e§]+", str(problem))


def test_masked_vectors_of_one_update_in_two_sessions_have_nothing_in_common(federation):
    first, second = federation(2), federation(2)
    second.entropy = [bytes([i]) * 32 for i in range(2)]
    second.clients = [second.client(i, secrets=SessionSecrets(second.entropy[i])) for i in range(2)]
    ys = []
    for made in (first, second):
        step = made.run("masked")
        masked = made.clients[0].receive(step.outgoing[made.ids[0]]).outgoing.masked
        ys.append(np.frombuffer(masked, np.uint8))
    same = np.count_nonzero(ys[0] == ys[1]) / len(ys[0])
    assert same < 0.2
