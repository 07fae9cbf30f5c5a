"""What a volunteer keeps is its owner's alone, whatever the umask it was started under."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from nomoat.aggregation.errors import NomoatError
from nomoat.storage.atomic import appending, held, replacing, replacing_folder
from nomoat.storage.private import check_own, keep_to_owner


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    before = os.umask(0o000)
    yield
    os.umask(before)


def loose(root: Path) -> list[str]:
    """Files and folders of which others may do something."""
    found = (root, *root.rglob("*"))
    return [str(p.relative_to(root)) for p in found if stat.S_IMODE(p.stat().st_mode) & 0o077]


def fill(root: Path) -> None:
    with replacing(root / "shards" / "train.jsonl") as file:
        file.write(b"{}")
    with appending(root / "sent.jsonl") as file:
        file.write(b"{}")
    with replacing_folder(root / "adapters") as folder:
        (folder / "a").write_bytes(b"a")
    with held(root / "running.lock", "taken"):
        pass


def test_everything_that_is_made_afterwards_is_its_owners_alone(tmp_path: Path) -> None:
    root = tmp_path / "home"
    root.mkdir()
    keep_to_owner(root, [])
    fill(root)
    assert loose(root) == []


def test_what_an_earlier_release_left_open_is_closed(tmp_path: Path) -> None:
    root = tmp_path / "home"
    root.mkdir()
    fill(root)
    assert {".", "shards/train.jsonl", "sent.jsonl", "running.lock"} <= set(loose(root))
    outside = tmp_path / "mine.jsonl"
    outside.write_text("")
    (root / "link").symlink_to(outside)
    beside = root / "not-ours.txt"
    beside.write_text("")
    keep_to_owner(root, [path for path in root.iterdir() if path != beside])
    assert beside.stat().st_mode & 0o777 == 0o666
    beside.unlink()
    (root / "link").unlink()
    assert loose(root) == []
    assert outside.stat().st_mode & 0o777 == 0o666  # nothing behind a link is touched


def test_a_folder_of_somebody_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(NomoatError, match="belongs to another user"):
        keep_to_owner(tmp_path, [])


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_what_others_may_write_or_own_is_not_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    file.chmod(0o644)
    check_own(file)
    file.chmod(mode)
    with pytest.raises(PermissionError):
        check_own(file)
    file.chmod(0o600)
    monkeypatch.setattr(os, "geteuid", lambda: file.stat().st_uid + 1)
    with pytest.raises(PermissionError):
        check_own(file)
