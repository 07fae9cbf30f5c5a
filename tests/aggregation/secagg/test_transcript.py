"""Whatever differs between what two volunteers were shown, their transcripts differ."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.adapter import Manifest, TensorSpec
from nomoat.aggregation.secagg.messages import Participant, SessionOffer, SessionRoster
from nomoat.aggregation.secagg.transcript import (
    BadSet,
    from_bitmap,
    manifest_hash,
    offer_hash,
    session_hash,
    to_bitmap,
)

OFFER = SessionOffer(
    bytes(32),
    1,
    1,
    bytes(32),
    bytes(32),
    bytes(32),
    bytes(32),
    (0.1, 0.2),
    21,
    8,
    9,
    100,
    300,
    False,
)
MEMBERS = tuple(Participant(bytes([i]) * 32, bytes(32), bytes(32), bytes(64)) for i in range(2))
ROSTER = SessionRoster(1, 2, 2, MEMBERS)


def other(value):
    if isinstance(value, bytes):
        return value[:-1] + b"\x7f"
    if isinstance(value, tuple):
        return (*value[:-1], other(value[-1]))
    return not value if isinstance(value, bool) else value + 1


@pytest.mark.parametrize("name", [field.name for field in fields(SessionOffer)])
def test_every_field_of_the_offer_is_in_its_hash(name):
    changed = replace(OFFER, **{name: other(getattr(OFFER, name))})
    assert offer_hash(changed) != offer_hash(OFFER)


def test_sessions_of_two_versions_of_the_protocol_have_nothing_in_common(monkeypatch):
    ours = offer_hash(OFFER)
    monkeypatch.setattr(wire, "PROTOCOL_VERSION", wire.PROTOCOL_VERSION + 1)
    assert offer_hash(OFFER) != ours


def test_offer_numbers_and_every_field_of_every_member_are_in_the_transcript():
    base = session_hash(bytes(32), ROSTER)
    found = [base, session_hash(b"\x01" * 32, ROSTER)]
    for name in ("neighbours", "shares", "quorum"):
        found.append(session_hash(bytes(32), replace(ROSTER, **{name: 7})))
    for at in (0, 1):
        for field in fields(Participant):
            member = replace(MEMBERS[at], **{field.name: other(getattr(MEMBERS[at], field.name))})
            members = (*MEMBERS[:at], member, *MEMBERS[at + 1 :])
            found.append(session_hash(bytes(32), replace(ROSTER, members=members)))
    found.append(session_hash(bytes(32), replace(ROSTER, members=MEMBERS[::-1])))
    found.append(session_hash(bytes(32), replace(ROSTER, members=MEMBERS[:1])))
    assert len(set(found)) == len(found)


def test_names_shapes_and_order_of_tensors_are_in_the_manifest_hash():
    a, b = TensorSpec("a", (2, 3)), TensorSpec("b", (6,))
    manifests = [(a, b), (b, a), (a,), (TensorSpec("a", (3, 2)), b), (TensorSpec("c", (2, 3)), b)]
    hashes = {manifest_hash(Manifest(tensors)) for tensors in manifests}
    assert len(hashes) == len(manifests)


def test_bitmaps_name_a_set_in_one_way_only():
    members = frozenset({0, 7, 8, 10})
    assert to_bitmap(members, 11) == b"\x81\x05"
    assert from_bitmap(b"\x81\x05", 11) == members
    for bad in (b"\x81", b"\x81\x05\x00", b"\x81\x0d"):
        with pytest.raises(BadSet):
            from_bitmap(bad, 11)
