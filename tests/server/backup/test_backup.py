"""A backup is one consistent file with sealed keys; volunteers go on with what it brings back."""

from __future__ import annotations

import contextlib
import datetime
import shutil
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from builders import BASE, OneKey, adapter, community_info
from nomoat.aggregation.errors import BadData, NomoatError, RemoteProtocolError
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.enrolment import Enrol, bind
from nomoat.aggregation.protocol.history import restoration
from nomoat.aggregation.protocol.history.key_changes import CommunityKeys
from nomoat.aggregation.protocol.history.restoration import Restorations
from nomoat.aggregation.protocol.invitation import Claims
from nomoat.aggregation.protocol.receipts import Receipt, Receipts, issue
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.client.home import CommunityFolder
from nomoat.client.membership import restored
from nomoat.client.membership.pinned_lineage import PinnedLineage
from nomoat.client.membership.roster_cache import RosterCache
from nomoat.client.membership.roster_file import RosterFile
from nomoat.client.sent.log_file import SentLog
from nomoat.server.audit.promises import audit
from nomoat.server.backup import sealing
from nomoat.server.backup.making import last_made, make
from nomoat.server.backup.moving import move_records
from nomoat.server.backup.restoring import ROUNDS_LEFT_OUT, restorations, restore
from nomoat.server.community.folder import Folder, create
from nomoat.server.community.opened import OpenCommunity
from nomoat.server.community.settings import (
    BaseModelSettings,
    CommunityRoundSettings,
    CommunitySettings,
    Settings,
)
from nomoat.server.community.versions import Provenance
from postgres import Server

PASSPHRASE = "four words of mine"
ADA, BOB = SigningKey(b"a" * 32), SigningKey(b"b" * 32)
NODES = {
    key.public: ec.derive_private_key(9000 + key.public[0], ec.SECP384R1()) for key in (ADA, BOB)
}


@dataclass
class Line(OneKey):
    """A coordinator as a volunteer's client sees it, without a port."""

    served: OpenCommunity
    identity: SigningKey

    @property
    def community(self) -> bytes:
        return self.served.registrar.key.public

    @property
    def keys(self) -> CommunityKeys:
        return CommunityKeys(self.community)

    def checked(self, check: Callable[[CommunityKeys], Any]) -> Any:
        return check(self.keys)

    def get(self, target: str, _now: int, _limit: int) -> bytes:
        asked = urlsplit(target)
        after = int(parse_qs(asked.query).get("after", ["0"])[0])
        store = self.served.registrar.database
        answer: dict[str, Any] = {
            "/lineage": lambda: self.served.versions.lineage(after),
            "/roster": lambda: self.served.registrar.page(after),
            "/restored": lambda: restorations(self.served.folder),
            "/receipts": lambda: Receipts(tuple(store.receipts(self.identity.public, after, 500))),
        }
        return wire.encode(answer[asked.path]()).head

    def post(self, target: str, _now: int, body: bytes = b"") -> bytes:
        assert target == "/receipts"
        given = wire.decode(wire.Packet(body), Receipts, "test").receipts
        self.served.registrar.take_back(given, self.identity.public)
        return b""


def enrol(community: OpenCommunity, name: str, identity: SigningKey) -> None:
    key = community.registrar.key.public
    claims = Claims("localhost:1", b"c" * 32, key, name.encode().ljust(16), 1, 2**33)
    token = community.registrar.invite(claims).token()
    binding = bind(name, identity, NODES[identity.public], key)
    community.registrar.enrol(wire.encode(Enrol(token, binding)).head, 5)


def version(community: OpenCommunity, number: int) -> None:
    provenance = Provenance(number, "fedavg", ("ada",), 2.0, None)
    community.versions.add(adapter(number), provenance, number)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A passphrase that is cheap to guess: what it costs is not tested here."""
    monkeypatch.setattr(sealing, "COST", 2**4)


@pytest.fixture
def community(tmp_path: Path) -> Iterator[OpenCommunity]:
    folder = Folder(tmp_path / "community")
    settings = Settings(
        community=CommunitySettings(name="town"),
        base=BaseModelSettings(model="m", folder=Path("m"), hash=BASE.hex(), bytes=1),
        rounds=CommunityRoundSettings(seed="00" * 32),
    )
    create(folder, settings, datetime.datetime.now(datetime.UTC), b"\7" * 32)
    opened = OpenCommunity.open(folder.root)
    for number in range(2):
        version(opened, number)
    enrol(opened, "ada", ADA)
    yield opened
    opened.registrar.database.close()


@pytest.fixture
def volunteer(community: OpenCommunity, tmp_path: Path) -> CommunityFolder:
    folder = CommunityFolder(tmp_path / "volunteer")
    folder.save_info(community_info(public=community.registrar.key.public))
    return folder


def test_what_is_in_the_wal_alone_is_in_the_backup_and_keys_only_under_the_passphrase(
    community: OpenCommunity, tmp_path: Path
) -> None:
    """The coordinator is up: its database is open, and its last transactions are in the -wal."""
    file = tmp_path / "town.backup"
    manifest = make(community, file, PASSPHRASE, 1000)
    assert (manifest.version, last_made(community.folder)) == (1, 1000)
    assert file.stat().st_mode & 0o077 == 0
    assert community.folder.community_key.read_bytes().strip() not in file.read_bytes()
    with pytest.raises(NomoatError, match="passphrase is another"):
        restore(file, tmp_path / "back", "another passphrase", 2000)
    assert not (tmp_path / "back").exists()
    restore(file, tmp_path / "back", PASSPHRASE, 2000)
    back = OpenCommunity.open(tmp_path / "back")
    with contextlib.closing(back.registrar.database):
        assert back.registrar.roster().members.keys() == {"ada"}
        assert back.versions.verify() == 3
        assert "restored at version 1" in back.versions.get(None).version.note
        assert back.versions.lineage(0).ended.round == ROUNDS_LEFT_OUT + 1
        assert back.folder.key().public == community.registrar.key.public


def test_a_backup_with_a_flipped_bit_brings_nothing_back(
    community: OpenCommunity, tmp_path: Path
) -> None:
    file = tmp_path / "town.backup"
    make(community, file, PASSPHRASE, 1000)
    with tarfile.open(file) as archive:
        places = [entry.offset_data + entry.size // 2 for entry in archive if entry.size]
    whole = file.read_bytes()
    for place in places:
        broken = bytearray(whole)
        broken[place] ^= 1
        file.write_bytes(broken)
        with pytest.raises(NomoatError, match=r"damaged|another"):
            restore(file, tmp_path / "back", PASSPHRASE, 2000)
        assert not (tmp_path / "back").exists()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadData):
        restore(file, tmp_path / "back", PASSPHRASE, 2000)


def test_a_backup_of_either_engine_comes_back_into_either(
    community: OpenCommunity, tmp_path: Path, postgres: Server
) -> None:
    before, roster = community.versions.database.versions(), community.registrar.page(0)
    faults = set(audit(community))
    root, url = community.folder.root, postgres.schema()
    community.registrar.database.close()
    move_records(root, url, "a move", datetime.datetime.now(datetime.UTC))
    for number, into in enumerate((postgres.schema(), None)):
        file, at = tmp_path / f"{number}.backup", tmp_path / f"back{number}"
        with contextlib.closing(OpenCommunity.open(root).registrar.database) as database:
            assert database.place.startswith("PostgreSQL")
            make(OpenCommunity.open(root), file, PASSPHRASE, 1000)
        restore(file, at, PASSPHRASE, 2000, database=into)
        assert Folder(at).database.exists() == (into is None)
        again = OpenCommunity.open(at)
        assert again.versions.database.versions()[: len(before)] == before
        assert again.registrar.page(0) == roster
        assert set(audit(again)) == faults
        again.registrar.database.close()
        root = at


def test_a_community_is_never_restored_over_another(
    community: OpenCommunity, tmp_path: Path
) -> None:
    file = tmp_path / "town.backup"
    make(community, file, PASSPHRASE, 1000)
    before = community.folder.database.read_bytes()
    with pytest.raises(NomoatError, match="exists already"):
        restore(file, community.folder.root, PASSPHRASE, 2000)
    assert community.folder.database.read_bytes() == before


def test_who_has_seen_more_goes_on_with_a_restored_community_at_its_owners_word(
    community: OpenCommunity, volunteer: CommunityFolder, tmp_path: Path
) -> None:
    file = tmp_path / "town.backup"
    make(community, file, PASSPHRASE, 1000)
    version(community, 2)
    enrol(community, "bob", BOB)
    key = community.registrar.key
    receipt = issue(Receipt(key.public, ADA.public, 2, b"p" * 32, 100, 7), key)
    line: Any = Line(community, ADA)
    versions, roster = (
        PinnedLineage(volunteer.root, line),
        RosterCache(RosterFile(volunteer.root), line),
    )
    assert (versions.refresh().record.version.number, roster.refresh().length) == (2, 2)
    SentLog(volunteer.root).keep(receipt)

    restore(file, tmp_path / "back", PASSPHRASE, 2000)
    line.served = OpenCommunity.open(tmp_path / "back")
    with contextlib.closing(line.served.registrar.database):
        for refresh in (versions.refresh, roster.refresh):
            with pytest.raises(RemoteProtocolError) as problem:
                refresh()
            told = restored.advice(volunteer, line, problem.value)
            assert "restored at version 1" in told
            assert "nomoat accept-restore" in told
        found = restored.waiting(volunteer, line)
        assert found is not None
        asked = restored.question(volunteer, found)
        assert "forget version 2 of the adapter, where version 2 stands now" in asked
        assert "forget 1 entries of its roster" in asked
        restored.accept(volunteer, found)
        versions.reload()
        roster.reload()
        assert versions.refresh().next_round == ROUNDS_LEFT_OUT + 2
        assert roster.refresh().members.keys() == {"ada"}
        assert restored.waiting(volunteer, line) is None
        assert restored.hand_back(volunteer, line) == 1
        assert restored.hand_back(volunteer, line) == 0
        assert line.served.registrar.database.receipts(ADA.public, 0, 9) == [receipt]
        version(line.served, 3)
        assert versions.refresh().record.version.number == 3


def test_who_has_not_seen_more_need_not_be_asked(
    community: OpenCommunity, volunteer: CommunityFolder, tmp_path: Path
) -> None:
    line: Any = Line(community, ADA)
    versions = PinnedLineage(volunteer.root, line)
    versions.refresh()
    file = tmp_path / "town.backup"
    make(community, file, PASSPHRASE, 1000)
    restore(file, tmp_path / "back", PASSPHRASE, 2000)
    line.served = OpenCommunity.open(tmp_path / "back")
    with contextlib.closing(line.served.registrar.database):
        assert versions.refresh().record.version.number == 2
        assert restored.waiting(volunteer, line) is None


def test_a_statement_is_believed_only_under_the_communitys_key_and_with_a_roster_seen_here(
    community: OpenCommunity, volunteer: CommunityFolder, tmp_path: Path
) -> None:
    file = tmp_path / "town.backup"
    make(community, file, PASSPHRASE, 1000)
    shutil.rmtree(community.folder.adapters)
    with pytest.raises(NomoatError, match="is missing: a backup without it would be none"):
        make(community, file, PASSPHRASE, 1001)
    restore(file, tmp_path / "back", PASSPHRASE, 2000)
    line: Any = Line(community, ADA)
    roster = RosterCache(RosterFile(volunteer.root), line)
    line.served = OpenCommunity.open(tmp_path / "back")
    with contextlib.closing(line.served.registrar.database):
        (found,) = restorations(line.served.folder).restorations
        folder = line.served.folder
        forged = replace(found, roster_head=b"x" * 32)
        folder.restored.write_bytes(wire.encode(Restorations((forged,))).head)
        with pytest.raises(RemoteProtocolError, match="not signed by the community"):
            restored.waiting(volunteer, line)
        roster.refresh()
        signed = restoration.sign(forged, line.served.registrar.key)
        with pytest.raises(RemoteProtocolError, match="none that this machine has seen"):
            restored.accept(volunteer, signed)
        stranger = issue(Receipt(b"k" * 32, ADA.public, 2, b"p" * 32, 100, 7), ADA)
        with pytest.raises(RemoteProtocolError):
            line.post("/receipts", 1, wire.encode(Receipts((stranger,))).head)
