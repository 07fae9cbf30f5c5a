"""What was promised to be on disk is there after a power cut, by the name it was given."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

import pytest

from nomoat.aggregation.errors import NomoatError
from nomoat.storage.atomic import appending, creating, moving, replacing, replacing_folder
from nomoat.storage.drafts import filling
from nomoat.storage.names import make_folder, settle

pytestmark = pytest.mark.skipif(os.name != "posix", reason="folders are synced on POSIX systems")


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The inodes that were synced, in order."""
    found: list[int] = []
    whole = os.fsync

    def fsync(handle: int) -> None:
        found.append(os.fstat(handle).st_ino)
        whole(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    return found


def inode(path: Path) -> int:
    return path.stat().st_ino


@pytest.mark.parametrize("writing", [replacing, creating, appending])
def test_a_file_is_synced_and_then_the_name_it_got(
    tmp_path: Path, synced: list[int], writing: Callable[[Path], AbstractContextManager[BinaryIO]]
) -> None:
    path = tmp_path / "keys.rec"
    with writing(path) as file:
        file.write(b"a change")
    assert synced == [inode(path), inode(tmp_path)]


def test_what_is_appended_to_a_file_that_was_there_needs_no_name(
    tmp_path: Path, synced: list[int]
) -> None:
    path = tmp_path / "marks.jsonl"
    path.touch()
    with appending(path) as file:
        file.write(b"a mark\n")
    assert synced == [inode(path)]


def test_what_tells_of_the_moment_spares_the_disk(tmp_path: Path, synced: list[int]) -> None:
    with replacing(tmp_path / "state.json", lasting=False) as file:
        file.write(b"{}")
    assert (tmp_path / "state.json").read_bytes() == b"{}"
    assert synced == []


def test_folders_that_are_made_on_the_way_have_their_names_synced(
    tmp_path: Path, synced: list[int]
) -> None:
    make_folder(tmp_path / "communities" / "id")
    assert synced == [inode(tmp_path), inode(tmp_path / "communities")]
    make_folder(tmp_path / "communities" / "id")
    assert len(synced) == 2


def test_a_file_that_moves_is_gone_from_one_folder_and_in_the_other_for_good(
    tmp_path: Path, synced: list[int]
) -> None:
    (tmp_path / "to").mkdir()
    (tmp_path / "key").write_bytes(b"seed")
    moving(tmp_path / "key", tmp_path / "to" / "key")
    assert sorted(synced) == sorted([inode(tmp_path), inode(tmp_path / "to")])


def test_a_folder_that_is_replaced_has_what_is_in_it_before_its_name(
    tmp_path: Path, synced: list[int]
) -> None:
    with replacing_folder(tmp_path / "adapter") as fresh:
        (fresh / "config.json").write_text("{}")
    new = tmp_path / "adapter"
    assert synced == [inode(new / "config.json"), inode(new), inode(tmp_path)]


def test_what_makes_a_folder_whole_comes_after_all_else_is_on_disk(
    tmp_path: Path, synced: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    rename, moved = os.rename, list[str]()

    def noted(source: Path, target: Path) -> None:
        if not moved or synced[-1] == inode(tmp_path):
            moved.append(Path(target).name)
        rename(source, target)

    monkeypatch.setattr(os, "rename", noted)
    with filling(tmp_path, "community.toml") as draft:
        for name in ("community.toml", "community.key"):
            (draft / name).write_text("x")
    assert moved == ["community.key", "community.toml"]
    assert synced[-1] == inode(tmp_path)


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_that_cannot_sync_folders_is_used_as_it_is(
    tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(_handle: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", cannot)
    settle(tmp_path)


def test_a_disk_that_fails_is_an_error_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = os.fsync

    def fails(handle: int) -> None:
        if os.fstat(handle).st_ino == inode(tmp_path):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        whole(handle)

    monkeypatch.setattr(os, "fsync", fails)
    with (
        pytest.raises(NomoatError, match=r"cannot write .*key: Input/output error"),
        replacing(tmp_path / "key") as file,
    ):
        file.write(b"seed")
