"""Evidence of an audit: anybody finds the same from it, and nobody honest can be accused by it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nomoat.aggregation.errors import RemoteProtocolError
from nomoat.aggregation.secagg.audit import evidence
from nomoat.aggregation.secagg.audit.evidence import SessionPart, SizeEvidence, SketchEvidence
from nomoat.aggregation.secagg.audit.terms import audited
from nomoat.aggregation.secagg.messages import MaskedReport, SketchReport
from tests.aggregation.secagg.audit.liars import BOUND, claim, session


def proof(made, i):
    """The evidence about volunteer i, as anybody reads it who was given its bytes."""
    data = evidence.to_bytes(made.server.proofs[made.ids[i]])
    assert evidence.to_bytes(evidence.from_bytes(data, "a file")) == data
    return evidence.from_bytes(data, "a file")


def test_too_large_an_update_is_found_from_what_its_sender_signed(federation):
    made = session(federation, {3}, size=400)
    made.run()
    found = evidence.finding(proof(made, 3))
    assert found.accused == made.ids[3]
    assert found.round == made.terms.round
    assert found.says == made.server.blamed[made.ids[3]]
    assert set(made.server.proofs) == {made.ids[3]}


@pytest.mark.parametrize(
    ("lies", "drops"),
    [
        ({"own": 5}, {}),
        ({"pairs": {1: 99}}, {}),
        ({"pairs": {i: 7 for i in range(8) if i != 4}}, {}),
        ({"pairs": {1: 2**20}}, {"masked": {1}}),
    ],
    ids=["own", "one pair", "all pairs", "with a dropout"],
)
def test_a_false_sketch_is_found_from_the_mask_that_was_revealed(federation, lies, drops):
    made = session(federation, drops=drops)
    made.up = {"sketches": claim(made, 4, **lies)}
    made.run()
    assert isinstance(proof(made, 4), SketchEvidence)
    found = evidence.finding(proof(made, 4))
    assert (found.accused, found.says) == (made.ids[4], "its sketches are not those of its masks")
    assert set(made.server.proofs) == {made.ids[4]}


def nothing(changed, match):
    with pytest.raises(RemoteProtocolError, match=match):
        evidence.finding(changed)


def honest(federation):
    """Evidence that a coordinator would make of an honest volunteer's own messages."""
    made = session(federation, size=400)
    reports = {}
    made.up = {
        "masked": lambda i, report: reports.setdefault(("masked", i), report),
        "sketches": lambda i, report: reports.setdefault(("sketches", i), report),
    }
    made.run("signatures")
    progress = made.server._collector._progress
    part = progress.part_about(2)
    assert part.report == reports["sketches", 2]
    return made, SizeEvidence(part, reports["masked", 2])


def test_of_an_honest_volunteer_nothing_is_found_whatever_its_coordinator_changes(federation):
    _, true = honest(federation)
    nothing(true, "not too large")
    part = true.session
    other = audited(replace(part.offer, audit_kind=0, audit_commit=bytes(32)), b"n" * 32)
    less = replace(part.offer, clip_l2=BOUND / 9)
    for changes, match in (
        ({"seed": b"n" * 32}, "not audited with this seed"),
        ({"offer": replace(part.offer, audit_kind=64)}, "of kind 64; this release makes 65"),
        ({"seed": b"n" * 32, "offer": other}, "not signed it"),
        ({"offer": less}, "not signed it"),
        ({"tensors": part.tensors[:1]}, "not those of the session"),
        ({"shared": b"\x7f"}, "one sketch per neighbour|not signed it"),
        ({"index": 3}, "not signed it"),
        ({"index": 900}, "accuses nobody"),
        (
            {"roster": replace(part.roster, members=part.roster.members[:7])},
            "not of this session|not signed it",
        ),
        ({"report": replace(part.report, own=bytes(256))}, "not signed it"),
        ({"report": replace(part.report, pairs=part.report.pairs[256:])}, "one sketch per"),
    ):
        nothing(replace(true, session=replace(part, **changes)), match)
    swapped = bytes(len(true.vector.masked))
    nothing(replace(true, vector=MaskedReport(true.vector.signature, swapped)), "not signed it")
    nothing(replace(true, vector=replace(true.vector, masked=swapped[:-1])), "bytes, not")


def test_a_true_sketch_proves_nothing_with_any_secret(federation):
    made, true = honest(federation)
    part = true.session
    mask_private = made.volunteer(5).secrets.mask_private
    own_private = made.volunteer(2).secrets.mask_private
    dealt = made.server._collector._progress.dealt[2]
    seed = made.volunteer(2).secrets.self_seed
    nothing(SketchEvidence(part, 5, 2, mask_private, None), "that of the mask")
    nothing(SketchEvidence(part, 2, 5, own_private, None), "that of the mask")
    nothing(SketchEvidence(part, 2, 2, seed, dealt), "that of the mask")
    nothing(SketchEvidence(part, 5, 2, own_private, None), "not its owner's")
    nothing(SketchEvidence(part, 2, 2, own_private, dealt), "committed to")
    nothing(SketchEvidence(part, 2, 2, own_private, None), "not one of the accused's")


def test_a_bound_below_what_rounding_makes_accuses_nobody(federation):
    """A coordinator that offers next to no bound sees the noise of rounding: no reason to blame."""
    made = session(federation, size=400)
    tiny = replace(made.offer, clip_l2=6e-6)  # one step of the ring
    made.offer = tiny
    made.server = type(made.server)(tiny, made.manifest, made.roster, made.audit_seed)
    for i in range(8):
        made.vectors[i] *= np.float32(6e-6 / np.linalg.norm(made.vectors[i]))
    made.clients = [made.client(i) for i in range(8)]
    made.run()
    assert not made.server.blamed
    assert not made.server.proofs


def test_bytes_that_are_no_evidence_are_refused_in_one_line():
    for data in (b"", b"\0\0\0\1", b"\xff" * 40, bytes(400)):
        with pytest.raises(RemoteProtocolError):
            evidence.from_bytes(data, "a file")


def test_evidence_names_the_session_and_nothing_that_unmasks(federation):
    """Of whoever left a sum no self mask is in its evidence; the reports are those it sent."""
    made = session(federation, {3}, size=400)
    made.run()
    found = proof(made, 3)
    assert isinstance(found.session, SessionPart)
    assert isinstance(found.session.report, SketchReport)
    data = evidence.to_bytes(found)
    secrets = made.volunteer(3).secrets
    assert secrets.self_seed not in data
    assert secrets.mask_private not in data
