"""What a volunteer that cheats can do: leave, or stop one session and be named for it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from nomoat.aggregation.errors import LocalProtocolError, RemoteProtocolError
from nomoat.aggregation.secagg import labels, reference
from nomoat.aggregation.secagg.masks import keys, shamir, shares
from nomoat.aggregation.secagg.masks.keys import SessionSecrets
from nomoat.aggregation.secagg.masks.prg import Keystream
from nomoat.aggregation.secagg.masks.shares import HeldShares
from nomoat.aggregation.secagg.messages import BOX_BYTES, CheckReport, KeysReport, ShareSet
from nomoat.aggregation.secagg.server import session as server


def transcript_of(made):
    return made.clients[0]._stage.session.transcript


def named(made, sender, message, words):
    """The coordinator refuses, names the sender and goes on without it."""
    with pytest.raises(RemoteProtocolError, match=words) as caught:
        made.server.receive(made.ids[sender], message)
    assert caught.value.peer == f"volunteer {sender}"
    assert made.ids[sender] in made.server.blamed
    assert made.ids[sender] not in made.server.waiting


def test_keys_that_are_not_signed_name_their_sender(federation):
    made = federation(8)
    made.server.open(made.ids)
    report = made.clients[2].receive(made.offer).outgoing
    named(made, 2, replace(report, box_key=report.mask_key[::-1]), "its keys are not signed")


@pytest.mark.parametrize("key", [bytes(32), (2**255 - 19 + 9).to_bytes(32, "little")])
def test_weak_keys_name_their_sender(federation, key):
    made = federation(8)
    made.server.open(made.ids)
    good = made.clients[2].receive(made.offer).outgoing
    offered = made.clients[2]._stage.offered
    signature = made.keys[2].sign(labels.SIGN_KEYS, offered, good.box_key, key, good.modules)
    named(made, 2, KeysReport(good.box_key, key, signature), "low order|not a canonical")


def test_copying_anothers_key_names_the_copier(federation):
    made = federation(8)
    made.server.open(made.ids)
    one = made.clients[1].receive(made.offer).outgoing
    made.server.receive(made.ids[1], one)
    offered = made.clients[1]._stage.offered
    signature = made.keys[2].sign(labels.SIGN_KEYS, offered, one.box_key, one.mask_key, one.modules)
    named(made, 2, replace(one, signature=signature), "its key is used twice")


def test_too_few_boxes_or_an_unsigned_report_names_its_sender(running):
    made, step = running("shares")
    for i, change in ((1, lambda r: replace(r, boxes=r.boxes[BOX_BYTES:])), (2, unsigned)):
        report = made.clients[i].receive(step.outgoing[made.ids[i]]).outgoing
        named(made, i, change(report), "one box per neighbour|its signature is not valid")


def unsigned(report):
    return replace(report, signature=bytes(64))


def test_a_masked_vector_with_a_wrong_signature_names_its_sender_and_is_not_added(running):
    made, step = running("masked")
    report = made.clients[3].receive(step.outgoing[made.ids[3]]).outgoing
    before = made.server._collector._sum._sum.copy()
    named(made, 3, replace(report, masked=bytes(len(report.masked))), "its signature is not valid")
    assert np.array_equal(made.server._collector._sum._sum, before)


def test_anothers_masked_vector_is_not_taken_for_ones_own(running):
    made, step = running("masked")
    report = made.clients[3].receive(step.outgoing[made.ids[3]]).outgoing
    named(made, 4, report, "its signature is not valid")


def test_a_wrong_survivor_signature_names_its_sender(running):
    made, step = running("signatures")
    report = made.clients[3].receive(step.outgoing[made.ids[3]]).outgoing
    named(made, 3, unsigned(report), "its signature is not valid")


@pytest.mark.parametrize("complaints", [(1,), (5, 4), (4, 4), (9,)])
def test_a_complaint_about_nobody_in_particular_names_the_complainant(running, complaints):
    made, step = running("checks", drops={"shares": {5}})
    made.clients[1].receive(step.outgoing[made.ids[1]])
    accused = labels.index_bytes(*complaints)
    signature = made.keys[1].sign(labels.SIGN_CHECK, transcript_of(made), accused)
    named(made, 1, CheckReport(complaints, signature), "someone it got no box from")


@pytest.mark.parametrize("which", [0, 3, 7])
def test_a_wrong_share_is_found_and_its_revealer_named(federation, which):
    """The other seven suffice: the sum comes out right, and volunteer 3 is named."""

    def spoil(i, report):
        if i != 3:
            return report
        changed = bytearray(report.shares)
        changed[36 * which] ^= 1
        signed = (made.clients_transcript, b"\xff", bytes(changed))
        return replace(
            report, shares=bytes(changed), signature=made.keys[3].sign(labels.SIGN_REVEAL, *signed)
        )

    made = federation(8, up={"reveals": spoil})
    collector_run = made.run("reveals")
    made.clients_transcript = made.server._collector._progress.session.transcript
    for public, message in collector_run.outgoing.items():
        made.exchange("reveals", made.ids.index(public), message)
    step = made.server.close()
    assert made.server.blamed == {made.ids[3]: f"it revealed a wrong share of volunteer {which}'s"}
    assert np.abs(step.result.mean - made.mean(set(range(8)))).max() <= made.tolerance(range(8))


def test_a_dealer_whose_shares_do_not_make_its_secret_is_found_and_named(federation):
    """It commits to every share honestly, but the shares are of something else."""

    def cheat(i, report):
        if i != 2:
            return report
        stage = made.clients[2]._stage
        session, points = stage.session, [*(j + 1 for j in stage.session.neighbours), 3]
        *wrong, kept = shamir.split(bytes(32), 6, points, Keystream(bytes(32)))
        boxes = b"".join(
            shares.seal(stage.box_secrets[j], session.transcript, (2, j), HeldShares(share, share))
            for j, share in zip(session.neighbours, wrong, strict=True)
        )
        own = shares.commit_share(labels.COMMIT_SEED_SHARE, session.transcript, (2, 2), kept)
        made.clients[2]._stage = replace(stage, kept=kept)
        body = (report.seed_commitment, own, boxes)
        signature = made.keys[2].sign(labels.SIGN_SHARES, session.transcript, *body)
        return type(report)(*body, signature)

    made = federation(8, up={"shares": cheat})
    step = made.run()
    assert step.phase is server.ServerPhase.ABANDONED
    assert made.server.blamed == {
        made.ids[2]: "its shares do not make the secret that it committed to"
    }


def two_shares():
    numbers = [word >> 1 for word in reference.words(bytes(32), 18)]
    limbs = [number.to_bytes(4, "little") for number in numbers]
    return HeldShares(b"".join(limbs[:9]), b"".join(limbs[9:]))


def sealed_by_hand(held, ends, committed):
    """§12.3, with commitments of one's choice."""
    where = labels.index_bytes(*ends)
    key = labels.derive(bytes(32), labels.KDF_BOX, b"T" * 32, where)
    cipher = ChaCha20Poly1305(key)
    return cipher.encrypt(bytes(12), held.seed + held.key, b"T" * 32 + where + committed)


def test_a_box_is_what_the_protocol_says():
    held, ends = two_shares(), (0, 1)
    box = shares.seal(bytes(32), b"T" * 32, ends, held)
    assert len(box) == BOX_BYTES
    assert box[:88] == sealed_by_hand(held, ends, box[88:])
    assert shares.open_box(bytes(32), b"T" * 32, ends, box) == held


@pytest.mark.parametrize("which", [0, 16])
def test_a_dealer_that_commits_to_other_shares_than_it_sends_is_complained_about(which):
    held, ends = two_shares(), (0, 1)
    committed = bytearray(shares.seal(bytes(32), b"T" * 32, ends, held)[88:])
    committed[which] ^= 1
    box = sealed_by_hand(held, ends, bytes(committed)) + bytes(committed)
    with pytest.raises(shares.BadBox, match="does not hold the shares that it commits to"):
        shares.open_box(bytes(32), b"T" * 32, ends, box)


def test_a_dealer_that_sends_numbers_beyond_the_field_is_complained_about():
    box = shares.seal(bytes(32), b"T" * 32, (0, 1), HeldShares(b"\xff" * 36, bytes(36)))
    with pytest.raises(shares.BadBox, match="not of the field"):
        shares.open_box(bytes(32), b"T" * 32, (0, 1), box)


def test_reveals_of_the_wrong_length_name_their_sender(running):
    made, step = running("reveals")
    report = made.clients[3].receive(step.outgoing[made.ids[3]]).outgoing
    named(made, 3, replace(report, shares=report.shares[36:]), "one share per neighbour")


def test_whoever_is_out_stays_out(running):
    made, step = running("masked")
    report = made.clients[3].receive(step.outgoing[made.ids[3]]).outgoing
    named(made, 3, unsigned(report), "not valid")
    with pytest.raises(RemoteProtocolError, match="is not expected"):
        made.server.receive(made.ids[3], report)


def test_answering_twice_changes_nothing(running):
    made, step = running("masked")
    report = made.clients[3].receive(step.outgoing[made.ids[3]]).outgoing
    made.server.receive(made.ids[3], report)
    before = made.server._collector._sum._sum.copy()
    with pytest.raises(RemoteProtocolError, match="is not expected"):
        made.server.receive(made.ids[3], report)
    assert np.array_equal(made.server._collector._sum._sum, before)
    assert made.ids[3] not in made.server.blamed


def test_a_slow_volunteers_late_answer_changes_nothing(running):
    made, step = running("masked")
    late = made.clients[0].receive(step.outgoing[made.ids[0]]).outgoing
    for i in range(1, 8):
        reply = made.clients[i].receive(step.outgoing[made.ids[i]])
        made.server.receive(made.ids[i], reply.outgoing)
    made.server.close()
    with pytest.raises(RemoteProtocolError, match="is not expected"):
        made.server.receive(made.ids[0], late)
    assert made.server._collector._progress.survivors == frozenset(range(1, 8))


def test_a_strangers_message_is_refused(running):
    made, _ = running("masked")
    with pytest.raises(RemoteProtocolError, match="an unknown volunteer"):
        made.server.receive(bytes(32), CheckReport((), bytes(64)))


# --- collusion ----------------------------------------------------------------------------------


def test_c_colluding_volunteers_and_the_coordinator_cannot_unmask_an_honest_one(running):
    """c = 2 of 8 pool all shares they hold: fewer than t, so every secret is equally likely."""
    made, step = running("signatures")
    assert step.outgoing
    colluding = [made.clients[i]._stage.held[0] for i in (6, 7)]
    assert made.clients[0]._stage.session.needed.corrupt == 2
    assert len(colluding) < made.clients[0]._stage.session.needed.shares
    honest = SessionSecrets(made.entropy[0])
    # For any other seed there are four more shares that fit the two: the two tell nothing.
    other = bytes(31) + b"\x07"
    points = {7: colluding[0].seed, 8: colluding[1].seed}
    for candidate in (honest.self_seed, other):
        fitting = complete(candidate, points, extra=(1, 2, 3))
        assert shamir.combine({**points, **fitting}) == candidate


def complete(secret, known, extra):
    """Shares at `extra` and one more point such that all of them interpolate to `secret`."""
    stream = Keystream(b"\x05" * 32)
    chosen = {point: shamir.field_elements(stream, 9).astype("<u4").tobytes() for point in extra}
    rest = {**known, **chosen}
    last = 9
    limbs = []
    value = int.from_bytes(secret, "little")
    for limb in range(9):
        total = value >> 30 * limb & (2**30 - 1)
        for xi, share in rest.items():
            term = int.from_bytes(share[4 * limb : 4 * limb + 4], "little")
            for xj in (*rest, last):
                if xj != xi:
                    term = term * xj * pow(xj - xi, -1, shamir.PRIME) % shamir.PRIME
            total -= term
        for xj in rest:
            total = total * (xj - last) * pow(xj, -1, shamir.PRIME) % shamir.PRIME
        limbs.append(total % shamir.PRIME)
    return {**chosen, last: b"".join(limb.to_bytes(4, "little") for limb in limbs)}


def test_all_but_one_colluding_learn_that_ones_update_from_the_sum_alone(federation):
    """The limit that docs/threat-model.md states: no protocol hides the last summand."""
    made = federation(3)
    step = made.run()
    others = sum(made.vectors[i].astype(float) for i in (1, 2))
    rest = step.result.mean * step.result.participants - others
    assert np.abs(rest - made.vectors[0]).max() < 1e-4


def test_a_masked_vector_of_zeros_looks_like_noise(running):
    made, _ = running("masked", 2, size=1 << 14)
    for i in range(2):
        made.vectors[i][:] = 0
    step = made.server._collector
    share_set = step._bitmap
    masked = made.clients[0].receive(ShareSet(share_set)).outgoing.masked
    counts = np.bincount(np.frombuffer(masked, np.uint8), minlength=256)
    expected = counts.sum() / 256
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    assert chi_squared < 255 + 6 * np.sqrt(2 * 255)


def test_keys_are_never_of_low_order_by_our_own_making():
    for entropy in (bytes(32), b"\xff" * 32):
        public = keys.public_of(SessionSecrets(entropy).mask_private)
        keys.check_public(public)
        keys.check_order(public)


@pytest.mark.parametrize("length", [0, 16, 31, 33, 64])
def test_entropy_of_the_wrong_size_is_refused(length):
    with pytest.raises(LocalProtocolError, match="32 bytes of entropy"):
        SessionSecrets(bytes(length))
