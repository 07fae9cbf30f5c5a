"""A whole community passes its audit, and every broken promise is named."""

from __future__ import annotations

import datetime
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from builders import BASE, SPEC, adapter
from nomoat.aggregation import methods
from nomoat.aggregation.errors import UsageError
from nomoat.aggregation.privacy.accounting import noise_multiplier
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.enrolment import Enrol, bind
from nomoat.aggregation.protocol.invitation import Claims
from nomoat.aggregation.protocol.lineage import VersionNoise
from nomoat.aggregation.protocol.roster import Event
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.server.audit.promises import audit
from nomoat.server.audit.schedule import FILE, ScheduledAudit
from nomoat.server.community.folder import Folder, create
from nomoat.server.community.journal import CommunityJournal
from nomoat.server.community.opened import OpenCommunity
from nomoat.server.community.settings import (
    BaseModelSettings,
    CommunityRoundSettings,
    CommunitySettings,
    Settings,
)
from nomoat.server.community.versions import Provenance
from nomoat.server.erasure import erase
from nomoat.server.rounds.federation import FederationCheckpoint
from nomoat.server.rounds.receipts import UpdateDigests
from nomoat.server.rounds.records import RoundRecord, nobodys_name

NAMES = ("ada", "bob")


def faults(community: OpenCommunity) -> list[str]:
    return [fault for fault in audit(community) if fault is not None]


def play(community: OpenCommunity, number: int, committed: bool = True, z: float = 0.0) -> None:
    """End a round as the coordinator does: receipts, then the record with its version."""
    earned = {name: UpdateDigests((bytes([number, len(name)]) + name.encode().ljust(30),), 9)
              for name in NAMES}  # fmt: skip
    community.credit(number, earned, 100 + number)
    state = methods.get("fedavg").begin(adapter(number if committed else number - 1))
    digest = state.adapter.digest.hex()
    record = RoundRecord(number, committed, "why", NAMES, NAMES, loss=3.0, adapter=digest, noise=z)
    noise = VersionNoise(noise_multiplier(8.0, 1e-6, 10), 8.0, 1e-6, 10) if z else None
    journal = CommunityJournal(community.versions, SPEC, "fedavg", lambda: 200, noise)
    journal.write(record, FederationCheckpoint(number, state, {}))


@pytest.fixture
def community(tmp_path: Path) -> Iterator[OpenCommunity]:
    folder = Folder(tmp_path / "community")
    settings = Settings(
        community=CommunitySettings(name="town"),
        base=BaseModelSettings(model="m", folder=Path("m"), hash=BASE.hex(), bytes=1),
        rounds=CommunityRoundSettings(seed="00" * 32),
    )
    create(folder, settings, datetime.datetime.now(datetime.UTC), b"\7" * 32)
    made = OpenCommunity.open(folder.root)
    made.versions.add(adapter(0), Provenance(0, "fedavg", (), None, None, "the base model"), 1)
    key = made.registrar.key.public
    for number, name in enumerate(NAMES):
        claims = Claims("localhost:1", b"c" * 32, key, name.encode().ljust(16), 1, 2**33)
        token = made.registrar.invite(claims).token()
        node = ec.derive_private_key(9100 + number, ec.SECP384R1())
        binding = bind(name, SigningKey(bytes([number + 1]) * 32), node, key)
        made.registrar.enrol(wire.encode(Enrol(token, binding)).head, 5)
    for number in (1, 2):
        play(made, number)
    play(made, 3, committed=False)
    made.versions.rollback(1, 300)
    made.registrar.order("bob", Event.LEAVE, "", 400)
    yield made
    made.registrar.database.close()


def test_a_whole_community_keeps_every_promise(community: OpenCommunity) -> None:
    assert faults(community) == []


def test_whoever_was_erased_breaks_no_promise(community: OpenCommunity) -> None:
    for number in range(len(NAMES)):  # one is there, one has left
        identity = SigningKey(bytes([number + 1]) * 32).public
        assert erase(community.registrar, identity, nobodys_name(), 500).rounds
        assert faults(community) == []
    spoiled = ("erased-1", "eve")  # a word for one name, and a name that was never there
    for contributors in (spoiled, spoiled[:1]):
        store = community.registrar.database
        record = RoundRecord.from_json(json.loads(store.rounds()[0]))
        text = json.dumps(replace(record, contributors=contributors).as_json())
        store._execute("UPDATE rounds SET record = ? WHERE number = 1", text)
        assert faults(community)


def sql(text: str) -> Callable[[OpenCommunity], object]:
    return lambda community: community.registrar.database._execute(text)


def torn(community: OpenCommunity) -> None:
    path = community.versions.path(adapter(1).digest)
    path.write_bytes(path.read_bytes()[:-8])


def spare(community: OpenCommunity) -> None:
    (community.folder.adapters / f"{'ab' * 32}.adapter").write_bytes(b"x")


def begun(community: OpenCommunity) -> None:
    (community.folder.root / "state.json").write_text(json.dumps({"round": 9}))


def other_contributors(community: OpenCommunity) -> None:
    store = community.registrar.database
    record = RoundRecord.from_json(json.loads(store.rounds()[0]))
    text = json.dumps(replace(record, contributors=("ada",)).as_json())
    store._execute("UPDATE rounds SET record = ? WHERE number = 1", text)


BROKEN: dict[str, tuple[Callable[[OpenCommunity], object], str]] = {
    "a torn adapter": (torn, "is missing or damaged"),
    "an adapter of nothing": (spare, "of no version that the database knows"),
    "a database without its -wal": (begun, "without community.db-wal"),
    "a lost round": (sql("DELETE FROM rounds WHERE number = 1"), "which did not give it"),
    "a lost version": (sql("DELETE FROM versions WHERE number = 2"), "there is no version of it"),
    "other contributors": (other_contributors, "other contributors than round 1"),
    "a lost receipt": (sql("DELETE FROM receipts WHERE round = 2"), "ada is in the sum of round 2"),
    "a receipt with a flipped bit": (
        sql(
            "UPDATE receipts SET receipt = "
            "CAST(substr(receipt, 1, length(receipt) - 1) || x'00' AS BLOB)"
        ),
        "its signature is not valid",
    ),
    "a changed standing": (
        sql("UPDATE volunteers SET standing = 'approved' WHERE name = 'bob'"),
        "bob is left in the roster, and not in the database",
    ),
    "a lost entry of the roster": (sql("DELETE FROM roster WHERE idx = 1"), "roster"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_every_broken_promise_is_named(community: OpenCommunity, case: str) -> None:
    break_it, said = BROKEN[case]
    break_it(community)
    again = OpenCommunity.open(community.folder.root)  # nothing is remembered
    try:
        assert said in "\n".join(faults(again))
    finally:
        again.registrar.database.close()


def test_a_coordinator_that_is_up_writes_down_what_it_found(
    community: OpenCommunity, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("nomoat.server.audit.schedule.PIECE_S", 0.0)
    spare(community)
    ScheduledAudit(community, threading.Event()).look()
    found = json.loads((community.folder.root / FILE).read_bytes())
    assert len(found["faults"]) == 1
    assert "of no version" in caplog.text


@pytest.mark.parametrize(
    ("line", "other"), [("rank = 2", "rank = 4"), ('method = "fedavg"', 'method = "ffa"')]
)
def test_what_versions_were_made_with_cannot_be_set_otherwise(
    community: OpenCommunity, line: str, other: str
) -> None:
    path = community.folder.settings
    text = path.read_text().replace("rank = 8", "rank = 2").replace("alpha = 16.0", "alpha = 4.0")
    path.write_text(text)
    replace(community, settings=community.folder.load()).check_fixed()
    assert line in text
    path.write_text(text.replace(line, other))
    with pytest.raises(UsageError, match=r"cannot become .*; set it back"):
        replace(community, settings=community.folder.load()).check_fixed()


def test_a_version_names_the_noise_that_its_round_had(community: OpenCommunity) -> None:
    z = noise_multiplier(8.0, 1e-6, 10)
    play(community, 4, z=z)
    play(community, 5)
    assert faults(community) == []
    newest = community.versions.get(None).version
    assert newest.noise is None
    assert community.versions.get(newest.number - 1).version.noise == VersionNoise(z, 8.0, 1e-6, 10)
    play(community, 6, z=z / 2)
    assert [fault for fault in faults(community) if "noise" in fault] == [
        f"version {newest.number + 1} names other noise than round 6 had"
    ]
