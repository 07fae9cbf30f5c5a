"""A restored community has back what its members hold, and contradicts nothing they have seen."""

from __future__ import annotations

import contextlib
import datetime
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from builders import BASE, SPEC, OneKey, adapter, community_info
from nomoat.aggregation.errors import NomoatError, Refused, RemoteProtocolError, Unreachable
from nomoat.aggregation.protocol import lineage, wire
from nomoat.aggregation.protocol.enrolment import Enrol, bind
from nomoat.aggregation.protocol.history.key_changes import CommunityKeys
from nomoat.aggregation.protocol.history.recovery import Holding, WantedPieces
from nomoat.aggregation.protocol.invitation import Claims
from nomoat.aggregation.protocol.lineage import VersionNoise
from nomoat.aggregation.protocol.receipts import Receipt, Receipts, issue
from nomoat.aggregation.protocol.roster import Event
from nomoat.aggregation.protocol.round_end import sign_end
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.client.home import CommunityFolder
from nomoat.client.membership import restored
from nomoat.client.membership.pinned_lineage import PinnedLineage
from nomoat.client.membership.recovery.giving_back import give_back, send
from nomoat.client.membership.recovery.held import holding
from nomoat.client.membership.roster_cache import RosterCache
from nomoat.client.membership.roster_file import RosterFile
from nomoat.server.audit.promises import audit
from nomoat.server.backup import begun as progress
from nomoat.server.backup import sealing
from nomoat.server.backup.making import make
from nomoat.server.backup.restoring import ROUNDS_LEFT_OUT, finish, restorations, restore, said
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
from nomoat.server.recovery.gathering import MOST_FAULTS, Gathering
from nomoat.server.rounds.records import RoundRecord

PASSPHRASE = "four words of mine"
NAMES = ("ada", "bob", "cy")


def key_of(name: str) -> SigningKey:
    return SigningKey(name.encode().ljust(32, b"."))


@dataclass
class Line(OneKey):
    """A coordinator as a volunteer's client reaches it: up, or asking what members hold."""

    served: OpenCommunity | None
    identity: SigningKey
    community: bytes
    gathering: Gathering | None = None
    now: float = 0.0
    posted: list[str] = field(default_factory=list)

    @property
    def keys(self) -> CommunityKeys:
        return CommunityKeys(self.community)

    def checked(self, check: Callable[[CommunityKeys], Any]) -> Any:
        return check(self.keys)

    def get(self, target: str, _now: int, _limit: int) -> bytes:
        asked, up = urlsplit(target), self.served
        if up is None:
            raise Unreachable("busy")
        after = int(parse_qs(asked.query).get("after", ["0"])[0])
        store = up.registrar.database
        if asked.path.startswith("/adapter/"):
            return up.versions.path(bytes.fromhex(asked.path[9:])).read_bytes()
        answer: dict[str, Any] = {
            "/lineage": lambda: up.versions.lineage(after),
            "/roster": lambda: up.registrar.page(after),
            "/restored": lambda: restorations(up.folder),
            "/receipts": lambda: Receipts(tuple(store.receipts(self.identity.public, after, 500))),
        }
        return wire.encode(answer[asked.path]()).head

    def post(self, target: str, _now: int, body: bytes = b"") -> bytes:
        asked, at, mine = urlsplit(target), self.gathering, self.identity.public
        self.posted.append(asked.path)
        if at is None:
            raise Unreachable("up as ever")
        if asked.path == "/recovery":
            return wire.encode(at.hear(body, mine, self.now)).head
        if asked.path == "/recovery/lineage":
            at.take_lineage(body, mine, 9)
        elif asked.path == "/recovery/roster":
            at.take_roster(body, mine, 9)
        else:
            digest = bytes.fromhex(asked.path.rsplit("/", 1)[1])
            at.take_adapter(digest, int(parse_qs(asked.query)["after"][0]), body, mine, self.now)
        return b""


class Machine:
    """A volunteer's machine: what its client keeps, by its client's own code."""

    def __init__(self, name: str, root: Path, served: OpenCommunity) -> None:
        self.name, self.folder = name, CommunityFolder(root / name)
        self.line: Any = Line(served, key_of(name), served.registrar.key.public)
        self.folder.save_info(community_info(public=self.line.community))
        self.versions = PinnedLineage(self.folder.root, self.line)
        self.roster = RosterCache(RosterFile(self.folder.root), self.line)

    def follow(self) -> None:
        """Verify what there is, and fetch the newest adapter."""
        self.roster.refresh()
        record = self.versions.refresh().record
        path = self.folder.adapter(record)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(self.line.get(f"/adapter/{record.version.adapter.hex()}", 0, 0))
        self.folder.save_version(record)

    def meets(self, gathering: Gathering | None, served: OpenCommunity | None = None) -> None:
        self.line.gathering, self.line.served = gathering, served

    def gives(self) -> bool:
        return give_back(self.folder, self.line, lambda: 0.0)


def enrol(community: OpenCommunity, name: str) -> None:
    key = community.registrar.key.public
    claims = Claims("localhost:1", b"c" * 32, key, name.encode().ljust(16), 1, 2**33)
    token = community.registrar.invite(claims).token()
    node = ec.derive_private_key(9000 + name.encode()[0], ec.SECP384R1())
    binding = bind(name, key_of(name), node, key)
    community.registrar.enrol(wire.encode(Enrol(token, binding)).head, 5)


def commit(community: OpenCommunity, number: int, noise: VersionNoise | None = None) -> None:
    """End a round as the journal does, without its losses."""
    record = community.versions.add(
        adapter(number % 100),
        Provenance(number, "fedavg", ("ada",), 2.0, None, noise=noise),
        number,
    )
    done = RoundRecord(
        number, True, "", contributors=("ada",), adapter=record.version.adapter.hex()
    )
    database, key = community.registrar.database, community.registrar.key
    database.put_round(number, True, json.dumps(done.as_json()), b"")
    receipt = Receipt(key.public, key_of("ada").public, number, bytes([number % 100]) * 32, 100, 7)
    database.put_receipt(issue(receipt, key))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A passphrase that is cheap to guess: what it costs is not tested here."""
    monkeypatch.setattr(sealing, "COST", 2**4)


@pytest.fixture
def lost(tmp_path: Path) -> Iterator[OpenCommunity]:
    """A community with two versions when a backup was made, and four and a member more later."""
    settings = Settings(
        community=CommunitySettings(name="town"),
        base=BaseModelSettings(model="m", folder=Path("m"), hash=BASE.hex(), bytes=1),
        rounds=CommunityRoundSettings(seed="00" * 32),
    )
    create(Folder(tmp_path / "lost"), settings, datetime.datetime.now(datetime.UTC), b"\7" * 32)
    opened = OpenCommunity.open(tmp_path / "lost")
    opened.versions.add(adapter(0), Provenance(0, "fedavg", (), None, None, "the base model"), 1)
    enrol(opened, "ada")
    enrol(opened, "bob")
    commit(opened, 1)
    make(opened, tmp_path / "town.backup", PASSPHRASE, 1000)
    for number in (2, 3, 4):
        commit(opened, number)
    enrol(opened, "cy")
    commit(opened, 5)
    yield opened
    opened.registrar.database.close()


@pytest.fixture
def people(lost: OpenCommunity, tmp_path: Path) -> dict[str, Machine]:
    machines = {name: Machine(name, tmp_path, lost) for name in NAMES}
    for machine in machines.values():
        machine.follow()
    return machines


def brought_back(tmp_path: Path, name: str = "again") -> tuple[OpenCommunity, Gathering]:
    restore(tmp_path / "town.backup", tmp_path / name, PASSPHRASE, 2000, 60)
    return opened_again(tmp_path, name)


def opened_again(tmp_path: Path, name: str = "again") -> tuple[OpenCommunity, Gathering]:
    """Open a folder as `nomoat up` does, as often as it is started."""
    community = OpenCommunity.open(tmp_path / name)
    begun = progress.read(community.folder)
    assert begun is not None
    community.registrar.database.closed = ""
    return community, Gathering(community, begun)


def ended(tmp_path: Path, community: OpenCommunity, gathering: Gathering) -> OpenCommunity:
    finish(community, gathering.begun, 3000)
    community.registrar.database.close()
    return OpenCommunity.open(tmp_path / community.folder.root.name)


def test_all_that_members_hold_comes_back_and_they_go_on_without_their_owners(
    lost: OpenCommunity, people: dict[str, Machine], tmp_path: Path
) -> None:
    before = lost.versions.database.versions()
    community, gathering = brought_back(tmp_path)
    for machine in people.values():
        machine.meets(gathering)
        assert machine.gives()
    assert gathering.heard() == (3, 3)
    back = ended(tmp_path, community, gathering)
    with contextlib.closing(back.registrar.database):
        records = back.versions.database.versions()
        assert records[:-1] == before
        assert records[-1].version.adapter == before[-1].version.adapter
        assert "; 2 to 5 came back from members" in records[-1].version.note
        assert back.registrar.roster().members.keys() == set(NAMES)
        assert [fault for fault in audit(back) if fault is not None] == []
        assert back.versions.lineage(0).ended.round > ROUNDS_LEFT_OUT
        for machine in people.values():
            machine.meets(None, back)
            machine.follow()
            assert restored.waiting(machine.folder, machine.line) is None
            assert restored.acknowledge(machine.folder, machine.line) is not None
            assert restored.acknowledge(machine.folder, machine.line) is None


def test_round_numbers_that_were_passed_over_count_as_no_rounds(
    lost: OpenCommunity, people: dict[str, Machine], tmp_path: Path
) -> None:
    """Else a community that was restored before would believe that its last round is over."""
    commit(lost, 10_009)
    people["ada"].follow()
    community, gathering = brought_back(tmp_path)
    people["ada"].meets(gathering)
    people["ada"].gives()
    back = ended(tmp_path, community, gathering)
    with contextlib.closing(back.registrar.database):
        checkpoint = CommunityJournal(back.versions, SPEC, "fedavg", lambda: 9).last()
        assert checkpoint is not None
        assert checkpoint.round == 20_009
        assert checkpoint.counted == 6


def test_versions_that_name_their_noise_come_back_with_it(
    lost: OpenCommunity, people: dict[str, Machine], tmp_path: Path
) -> None:
    commit(lost, 6, VersionNoise(2.0, 8.0, 1e-5, 1))
    people["ada"].follow()
    community, gathering = brought_back(tmp_path)
    people["ada"].meets(gathering)
    assert people["ada"].gives()
    back = ended(tmp_path, community, gathering)
    with contextlib.closing(back.registrar.database):
        assert back.versions.get(6).version.noise is not None
        assert [fault for fault in audit(back) if fault is not None] == []


def test_nothing_is_signed_and_no_order_is_taken_before_members_were_asked(
    lost: OpenCommunity, tmp_path: Path
) -> None:
    restore(tmp_path / "town.backup", tmp_path / "again", PASSPHRASE, 2000, 60)
    community = OpenCommunity.open(tmp_path / "again")
    with contextlib.closing(community.registrar.database):
        assert community.versions.database.newest_version() == lost.versions.get(1)
        assert not community.folder.restored.exists()
        for order in (
            lambda: community.registrar.order("ada", Event.BAN, "", 9),
            lambda: community.versions.rollback(0, 9),
            lambda: make(community, tmp_path / "another", PASSPHRASE, 9),
            lambda: enrol(community, "dee"),
        ):
            with pytest.raises(NomoatError, match="asked first"):
                order()


def test_with_nobody_who_holds_anything_it_goes_on_from_the_backup(
    lost: OpenCommunity, people: dict[str, Machine], tmp_path: Path
) -> None:
    community, gathering = brought_back(tmp_path)
    assert gathering.heard() == (0, 2)
    back = ended(tmp_path, community, gathering)
    with contextlib.closing(back.registrar.database):
        assert back.versions.get(None).version.number == 2
        assert "came back" not in back.versions.get(None).version.note
        ada = people["ada"]
        ada.meets(None, back)
        found = restored.waiting(ada.folder, ada.line)
        assert found is not None
        assert "version 5 of the adapter" in restored.question(ada.folder, found)


def test_a_backup_from_before_a_change_of_the_key_is_told_to_be_one_once(
    lost: OpenCommunity,
    people: dict[str, Machine],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    community, gathering = brought_back(tmp_path)
    record = lineage.sign(lost.versions.get(5).version, SigningKey(b"later".ljust(32)))
    held = wire.encode(Holding(record, None, 1, b"", None, None)).head
    for who in ("stranger", "ada", "bob"):
        with pytest.raises(RemoteProtocolError):
            gathering.hear(held, key_of(who).public, 0.0)
        told = caplog.text.count("signed by no key of this backup")
        assert told == (who != "stranger")
    assert "what ada holds" in caplog.text
    community.registrar.database.close()


def test_who_joined_after_the_backup_is_a_member_by_what_it_brings(
    lost: OpenCommunity, people: dict[str, Machine], tmp_path: Path
) -> None:
    community, gathering = brought_back(tmp_path)
    cy = people["cy"]
    cy.meets(gathering)
    assert gathering.member(key_of("cy").public) is None
    assert cy.gives()
    assert gathering.member(key_of("cy").public) == "cy"
    assert gathering.state.newest.version.number == 5
    stranger = Machine("dee", tmp_path, lost)
    stranger.meets(gathering)
    with pytest.raises(Refused, match="only members"):
        stranger.gives()
    community.registrar.database.close()


def test_a_coordinator_that_was_killed_between_any_two_pieces_asks_on(
    lost: OpenCommunity, people: dict[str, Machine], tmp_path: Path
) -> None:
    """What was told of before is there again; nobody has to tell it twice."""
    community, gathering = brought_back(tmp_path)
    ada = people["ada"]
    for _ in range(4):
        ada.meets(gathering)
        answer = wire.decode(
            wire.Packet(ada.line.post("/recovery", 0, wire.encode(holding(ada.folder)).head)),
            WantedPieces,
            "test",
        )
        state = gathering.state
        send(ada.folder, ada.line, answer, lambda: 0.0, lambda _size: None)
        community.registrar.database.close()
        community, again = opened_again(tmp_path)
        assert again.state.rank >= state.rank
        assert again.state.rank == gathering.state.rank
        assert again.state.roster == gathering.state.roster
        gathering = again
        if answer.nothing:
            break
    assert gathering.state.newest.version.number == 5
    back = ended(tmp_path, community, gathering)
    with contextlib.closing(back.registrar.database):
        assert back.versions.get(None).version.adapter == lost.versions.get(5).version.adapter


def test_a_kill_while_it_is_said_what_stands_ends_with_one_version_and_one_statement(
    lost: OpenCommunity, people: dict[str, Machine], tmp_path: Path
) -> None:
    community, gathering = brought_back(tmp_path)
    people["ada"].meets(gathering)
    people["ada"].gives()
    kept = community.folder.restoring.read_bytes()
    finish(community, gathering.begun, 3000)
    community.folder.restored.unlink()
    community.folder.restoring.write_bytes(kept)
    begun = progress.read(community.folder)
    assert begun is not None
    assert said(community, begun)
    finish(community, begun, 4000)
    assert community.versions.get(None).version.number == 6
    (statement,) = restorations(community.folder).restorations
    assert statement.version == community.versions.get(None)
    community.registrar.database.close()


def test_a_hostile_member_brings_nothing_in_and_is_not_heard_after_three_refusals(
    lost: OpenCommunity, people: dict[str, Machine], tmp_path: Path
) -> None:
    community, gathering = brought_back(tmp_path)
    bob, ada = people["bob"], people["ada"]
    bob.meets(gathering)
    real = holding(bob.folder)
    assert real.newest is not None
    forger = SigningKey(b"f" * 32)
    forged = lineage.sign(real.newest.version, forger)
    told = Holding(forged, sign_end(99, forged, forger), 5, b"", None, None)
    for _ in range(MOST_FAULTS):
        with pytest.raises(RemoteProtocolError, match="not signed"):
            bob.line.post("/recovery", 0, wire.encode(told).head)
    assert gathering.state.records == ()
    with pytest.raises(Refused, match="not taken any more"):
        bob.line.post("/recovery/lineage", 0, b"")
    assert bob.gives()  # nothing is wanted of it
    ada.meets(gathering)
    assert ada.gives()
    assert gathering.state.newest.version.number == 5
    community.registrar.database.close()


def test_junk_for_an_adapter_is_thrown_away_and_another_member_is_asked(
    lost: OpenCommunity, people: dict[str, Machine], tmp_path: Path
) -> None:
    community, gathering = brought_back(tmp_path)
    bob, ada = people["bob"], people["ada"]
    record = bob.folder.version()
    assert record is not None
    path = bob.folder.adapter(record)
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    bob.meets(gathering)
    with pytest.raises(RemoteProtocolError, match="does not match its length and digest"):
        bob.gives()
    assert not list(community.folder.adapters.glob(".*.part"))
    ada.meets(gathering)
    assert ada.gives()
    assert community.versions.load(gathering.state.newest).digest == adapter(5).digest
    community.registrar.database.close()


def test_one_member_at_a_time_is_asked_for_an_adapter_and_another_when_it_falls_silent(
    lost: OpenCommunity, people: dict[str, Machine], tmp_path: Path
) -> None:
    community, gathering = brought_back(tmp_path)
    wanted = []
    for name in ("ada", "bob"):
        machine = people[name]
        machine.meets(gathering)
        while True:
            body = wire.encode(holding(machine.folder)).head
            answer = wire.decode(
                wire.Packet(machine.line.post("/recovery", 0, body)), WantedPieces, "test"
            )
            if answer.nothing or answer.adapter:
                break
            send(machine.folder, machine.line, answer, lambda: 0.0, lambda _size: None)
        wanted.append(answer.adapter != b"")
    assert wanted == [True, False]
    assert not gathering.idle(0.0)
    people["bob"].line.now = 31.0
    assert gathering.idle(31.0)
    assert people["bob"].gives()
    assert community.versions.load(gathering.state.newest).digest == adapter(5).digest
    community.registrar.database.close()


def test_without_the_newest_adapter_the_chain_stays_whole_over_the_newest_one_there_is(
    lost: OpenCommunity, people: dict[str, Machine], tmp_path: Path
) -> None:
    for machine in people.values():
        record = machine.folder.version()
        assert record is not None
        machine.folder.adapter(record).unlink()
    community, gathering = brought_back(tmp_path)
    people["ada"].meets(gathering)
    assert people["ada"].gives()
    back = ended(tmp_path, community, gathering)
    with contextlib.closing(back.registrar.database):
        assert back.versions.get(None).version.number == 6
        assert back.versions.get(None).version.adapter == lost.versions.get(1).version.adapter
        people["ada"].meets(None, back)
        assert people["ada"].versions.refresh().record.version.number == 6
        assert [fault for fault in audit(back) if fault is not None] == []


def test_a_backup_put_back_twice_is_told_again_and_its_rounds_are_new(
    lost: OpenCommunity, people: dict[str, Machine], tmp_path: Path
) -> None:
    """The first time nobody was asked, and owners gave their word."""
    ada, bob = people["ada"], people["bob"]
    restore(tmp_path / "town.backup", tmp_path / "first", PASSPHRASE, 2000)
    first = OpenCommunity.open(tmp_path / "first")
    ada.meets(None, first)
    found = restored.waiting(ada.folder, ada.line)
    assert found is not None
    restored.accept(ada.folder, found)
    ada.versions.reload()
    ada.roster.reload()
    ada.follow()
    first.registrar.database.close()
    community, gathering = brought_back(tmp_path)
    for machine in (bob, ada):  # bob holds the longer chain, that was given up
        machine.meets(gathering)
        assert machine.gives()
    back = ended(tmp_path, community, gathering)
    with contextlib.closing(back.registrar.database):
        again = restorations(back.folder).restorations[-1]
        assert again.index == found.index + 1
        assert again.ended.round > found.ended.round
        ada.meets(None, back)
        ada.follow()
        assert restored.waiting(ada.folder, ada.line) is None
        bob.meets(None, back)
        asked = restored.waiting(bob.folder, bob.line)
        assert asked is not None
        restored.accept(bob.folder, asked)
        bob.versions.reload()
        bob.roster.reload()
        bob.follow()
