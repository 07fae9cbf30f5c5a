"""A volunteer can see all that is held of it, and have what can be erased erased."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from nomoat.aggregation.errors import UsageError
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.enrolment import Enrol, bind
from nomoat.aggregation.protocol.invitation import Claims
from nomoat.aggregation.protocol.receipts import Receipt, issue
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.server.community.folder import Folder, create
from nomoat.server.community.opened import OpenCommunity
from nomoat.server.community.settings import (
    BaseModelSettings,
    CommunityRoundSettings,
    CommunitySettings,
    Settings,
)
from nomoat.server.erasure import NOTE, Erased, erase, held_of
from nomoat.storage import arrays
from round_records import RECORDS

NOW = 1_800_000_000
ADA, BEN = SigningKey(b"\1" * 32), SigningKey(b"\2" * 32)


@pytest.fixture
def community(tmp_path: Path) -> OpenCommunity:
    settings = Settings(
        community=CommunitySettings(name="town"),
        base=BaseModelSettings(model="m", folder=Path("m"), hash="ab" * 32, bytes=1),
        rounds=CommunityRoundSettings(seed="00" * 32),
    )
    made = Folder(tmp_path / "town")
    create(made, settings, datetime.datetime.now(datetime.UTC), b"\7" * 32)
    opened = OpenCommunity.open(made.root)
    for name, identity in (("ada", ADA), ("ben", BEN)):
        _enrol(opened, name, identity)
    store = opened.registrar.database
    checkpoint = arrays.pack(
        {"losses": {"ada": 2.4, "ben": 3.4}, "best": {"volunteers": {"ada": 2.0}}},
        {"adapter": np.arange(3.0)},
    )
    for record in RECORDS:
        text = json.dumps(record.as_json())
        store.put_round(record.round, record.committed, text, checkpoint)
    store.put_strike(1, "late", "ada", "ben", NOW)
    store.put_strike(1, "accused", "ben", "ada", NOW)
    for identity, byte in ((ADA, 1), (BEN, 2)):
        key = opened.registrar.key
        receipt = Receipt(key.public, identity.public, 1, bytes([byte]) * 32, 256, NOW)
        store.put_receipt(issue(receipt, key))
    return opened


def _enrol(opened: OpenCommunity, name: str, identity: SigningKey) -> None:
    registrar = opened.registrar
    claims = Claims(
        "localhost:1", b"\0" * 32, registrar.key.public, identity.public[:16], 1, NOW + 60
    )
    token = registrar.invite(claims).token()
    binding = bind(name, identity, ec.generate_private_key(ec.SECP384R1()), registrar.key.public)
    registrar.enrol(wire.encode(Enrol(token, binding)).head, NOW)


def stored(community: OpenCommunity) -> str:
    """All of the rounds table, as text."""
    rows = community.registrar.database.whole_rounds()
    return json.dumps([(text, arrays.unpack(data)[0] if data else "") for _, text, data in rows])


def test_export_has_everything_and_nobody_elses(community: OpenCommunity) -> None:
    held = held_of(community.registrar, "ada")
    assert held["identity"] == ADA.public.hex()
    assert [entry["event"] for entry in held["roster"]] == ["join"]
    assert [receipt["tokens"] for receipt in held["receipts"]] == [256]
    assert [each["round"] for each in held["rounds"]] == [0, 1, 2]
    first, second, _ = held["rounds"]
    assert first["losses"] == 2.5
    assert second["contributors"] is True
    assert second["train_seconds"] == 1.0
    assert held["noted_against"] == [{"round": 1, "kind": "late", "at": NOW}]
    assert "ben" not in json.dumps(held)
    assert BEN.public.hex() not in json.dumps(held)
    with pytest.raises(UsageError):
        held_of(community.registrar, "eve")


def test_erasing_takes_the_name_out_of_records_and_keeps_every_count(
    community: OpenCommunity,
) -> None:
    registrar = community.registrar
    before = [json.loads(text) for text in registrar.database.rounds()]
    assert erase(registrar, ADA.public, "erased-1", NOW) == Erased(receipts=1, rounds=3)
    assert '\\"ada\\"' not in stored(community)
    after = [json.loads(text) for text in registrar.database.rounds()]
    for old, new in zip(before, after, strict=True):
        assert sorted(old["losses"].values()) == sorted(new["losses"].values())
        assert len(old["contributors"]) == len(new["contributors"])
        assert old["loss"] == new["loss"]
    assert [strike[2:4] for strike in registrar.database.strikes()] == [
        ("erased-1", "ben"),
        ("ben", "erased-1"),
    ]
    assert registrar.database.receipts(ADA.public, 0, 10) == []
    assert len(registrar.database.receipts(BEN.public, 0, 10)) == 1
    (data,) = [data for _, _, data in registrar.database.whole_rounds() if data]
    meta, values = arrays.unpack(data)
    assert meta["best"] == {"volunteers": {"erased-1": 2.0}}
    assert values["adapter"].tolist() == [0.0, 1.0, 2.0]


def test_a_tombstone_stays_and_says_so(community: OpenCommunity) -> None:
    registrar = community.registrar
    erase(registrar, ADA.public, "erased-1", NOW)
    member = registrar.roster().named(ADA.public)
    assert member is not None
    assert member.standing.value == "left"
    known = registrar.database.applicant("ada")
    assert known is not None
    assert known.reason == NOTE
    assert [entry["event"] for entry in held_of(registrar, "ada")["roster"]] == ["join", "leave"]
    assert erase(registrar, ADA.public, "erased-2", NOW) == Erased(0, 0)


def test_nobody_is_erased_who_is_not_there(community: OpenCommunity) -> None:
    before = stored(community)
    with pytest.raises(UsageError):
        erase(community.registrar, rb"\9" * 32, "erased-1", NOW)
    assert stored(community) == before


def test_a_damaged_checkpoint_does_not_keep_the_rest_from_being_erased(
    community: OpenCommunity,
) -> None:
    store = community.registrar.database
    store.replace_round(1, store.round_record(1) or "", b"damaged")
    assert erase(community.registrar, ADA.public, "erased-1", NOW).rounds == 3
    assert '"ada"' not in (store.round_record(1) or "")
