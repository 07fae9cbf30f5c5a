"""A community's key changes whole or not at all, and all that was signed before stays good."""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from builders import BASE, adapter
from nomoat.aggregation.errors import NomoatError, Refused, RemoteProtocolError
from nomoat.aggregation.protocol import invitation, wire
from nomoat.aggregation.protocol.enrolment import Enrol, Standing, bind
from nomoat.aggregation.protocol.invitation import Claims, Invitation
from nomoat.aggregation.protocol.roster import Event
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.server.audit.promises import audit
from nomoat.server.backup import sealing
from nomoat.server.backup.making import make
from nomoat.server.backup.restoring import restore
from nomoat.server.community.folder import Folder, create
from nomoat.server.community.opened import OpenCommunity
from nomoat.server.community.settings import (
    BaseModelSettings,
    CommunityRoundSettings,
    CommunitySettings,
    Settings,
)
from nomoat.server.community.versions import Provenance
from nomoat.server.rounds.receipts import UpdateDigests
from nomoat.server.succession import kept_keys, rotation

PASSPHRASE = "four words of mine"
NODES = [ec.derive_private_key(800 + number, ec.SECP384R1()) for number in range(4)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A community with a version and a member, as the key it was made with signed them."""
    settings = Settings(
        community=CommunitySettings(name="town"),
        base=BaseModelSettings(model="m", folder=Path("m"), hash=BASE.hex(), bytes=1),
        rounds=CommunityRoundSettings(seed="00" * 32),
    )
    folder = Folder(tmp_path / "community")
    create(folder, settings, datetime.datetime.now(datetime.UTC), b"\7" * 32)
    with community_in(folder.root) as community:
        community.versions.add(adapter(0), Provenance(0, "fedavg", (), None, None, "start"), 1)
        enrol(community, 0, invite(community, 0))
    return folder.root


@contextlib.contextmanager
def community_in(root: Path) -> Iterator[OpenCommunity]:
    community = OpenCommunity.open(root)
    with contextlib.closing(community.registrar.database):
        yield community


def invite(community: OpenCommunity, number: int) -> Invitation:
    key = community.registrar.key.public
    return community.registrar.invite(
        Claims("localhost:1", b"c" * 32, key, bytes([number]) * 16, 5, 2**33)
    )


def enrol(community: OpenCommunity, number: int, invited: Invitation) -> Standing:
    identity = SigningKey(bytes([number + 1]) * 32)
    founding = community.registrar.keys.founding
    binding = bind(f"vol{number}", identity, NODES[number], founding)
    answer = community.registrar.enrol(wire.encode(Enrol(invited.token(), binding)).head, 5)
    return Standing(answer.standing)


def rotated(root: Path, number: int = 1) -> None:
    with community_in(root) as community:
        rotation.ask(community.folder, bytes([100 + number]) * 32)
        rotation.rotate(community, number)


def faults(community: OpenCommunity) -> list[str]:
    return [fault for fault in audit(community) if fault is not None]


def test_all_of_before_and_after_is_verified_and_the_identity_stays(root: Path) -> None:
    with community_in(root) as community:
        before, earlier = community.registrar.keys.id, invite(community, 1)
        community.credit(1, {"vol0": UpdateDigests((b"p" * 32,), 5)}, 3)
    rotated(root)
    rotated(root, 2)
    with community_in(root) as community:
        assert community.registrar.keys.id == before
        assert len(community.registrar.keys.changes) == 2
        assert enrol(community, 1, earlier) is Standing.APPROVED
        assert enrol(community, 2, invite(community, 2)) is Standing.APPROVED
        community.registrar.order("vol0", Event.HOLD, "late", 9)
        community.versions.rollback(0, 9)
        assert community.versions.verify() == 2
        assert faults(community) == []


def test_a_process_killed_at_any_step_leaves_one_key_that_signs(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    founding = SigningKey(b"\7" * 32).public
    rotation.ask(Folder(root), b"\x65" * 32)
    with community_in(root) as community:  # killed before keys.rec: the old key is in force
        assert community.registrar.key.public == founding
        assert rotation.is_asked(community.folder)
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", _killed_at(Folder(root).next_key))
            with pytest.raises(KeyboardInterrupt):
                rotation.rotate(community, 1)
    assert Folder(root).key().public == founding  # killed between keys.rec and the key file
    with community_in(root) as community:
        assert community.registrar.key.public == SigningKey(b"\x65" * 32).public
        assert not rotation.is_asked(community.folder)
        assert faults(community) == []


def _killed_at(source: Path) -> Callable[[Path, Path], None]:
    whole = os.replace

    def replace(old: Path, new: Path) -> None:
        if Path(old) == source:
            raise KeyboardInterrupt
        whole(old, new)

    return replace


def test_after_a_power_cut_the_key_in_use_is_one_that_the_folder_tells_of(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rename is lost in one until its folder is synced, be it followed by another or not."""
    synced, whole = list[int](), os.fsync

    def fsync(handle: int) -> None:
        synced.append(os.fstat(handle).st_ino)
        whole(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", _killed_at(Folder(root).next_key))
    with community_in(root) as community:
        rotation.ask(community.folder, b"\x65" * 32)
        with pytest.raises(KeyboardInterrupt):
            rotation.rotate(community, 1)
    keys = Folder(root).keys
    assert synced[-2:] == [keys.stat().st_ino, keys.parent.stat().st_ino]  # before the key moves


def test_whoever_opened_the_community_before_signs_nothing_after(root: Path) -> None:
    with community_in(root) as stale:
        rotated(root)
        with pytest.raises(NomoatError, match="key has just been changed"):
            stale.registrar.order("vol0", Event.HOLD, "late", 9)
        with pytest.raises(NomoatError, match="key has just been changed"):
            stale.versions.rollback(0, 9)
    with community_in(root) as community:
        assert faults(community) == []


def test_a_thief_of_the_old_key_invites_nobody(root: Path) -> None:
    old = SigningKey(b"\7" * 32)
    rotated(root)
    with community_in(root) as community:
        claims = Claims("localhost:1", b"c" * 32, old.public, b"x" * 16, 5, 2**33)
        with pytest.raises((Refused, RemoteProtocolError)):
            enrol(community, 1, invitation.issue(claims, old))
        stranger = SigningKey(b"s" * 32)
        claims = Claims("localhost:1", b"c" * 32, stranger.public, b"x" * 16, 5, 2**33)
        with pytest.raises(RemoteProtocolError, match="another community"):
            enrol(community, 1, invitation.issue(claims, stranger))


def test_a_backup_carries_the_new_key_and_its_chain(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealing, "COST", 2**4)
    rotated(root)
    with community_in(root) as community:
        make(community, tmp_path / "backup", PASSPHRASE, 7)
        keys = community.registrar.keys
    restore(tmp_path / "backup", tmp_path / "again", PASSPHRASE, 8)
    with community_in(tmp_path / "again") as community:
        assert community.registrar.keys == keys
        assert faults(community) == []


@pytest.mark.parametrize("damage", ["keys", "community_key"])
def test_a_key_that_is_not_of_the_chain_is_refused_in_one_line(root: Path, damage: str) -> None:
    rotated(root)
    folder = Folder(root)
    if damage == "keys":
        written = folder.keys.read_bytes()
        folder.keys.write_bytes(written[:-1] + bytes([written[-1] ^ 1]))
    else:
        folder.community_key.write_bytes(b"33" * 32)
    with pytest.raises(NomoatError, match="bring a backup back with nomoat restore"):
        kept_keys.key_and_changes(folder)
