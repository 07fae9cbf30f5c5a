"""A lock is one process's at a time, and ends with it, however it ends."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from nomoat.aggregation.errors import NomoatError
from nomoat.storage.atomic import MOVE_AGAIN_S, held, no_room, replacing, sweep

HOLDER = """
import sys, time
from pathlib import Path
from nomoat.storage.atomic import held
with held(Path(sys.argv[1]), "taken"):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_lock_of_a_process_that_was_killed_is_free_again(tmp_path: Path) -> None:
    lock = tmp_path / "below" / "run.lock"
    lock.parent.mkdir()
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(lock)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(NomoatError, match="taken by another"), held(lock, "taken by another"):
            pass
    finally:
        holder.kill()
        holder.communicate()
    with held(lock, "taken by another"):
        pass


def test_a_lock_is_not_given_twice_in_one_process_and_free_after_an_error(tmp_path: Path) -> None:
    lock = tmp_path / "run.lock"
    with held(lock, "taken"), pytest.raises(NomoatError, match=r"^taken$"), held(lock, "taken"):
        pass
    with pytest.raises(ZeroDivisionError), held(lock, "taken"):
        raise ZeroDivisionError
    with held(lock, "taken"):
        pass


def test_a_place_where_no_lock_can_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    lock = tmp_path / "file" / "run.lock"
    with pytest.raises(NomoatError, match=r"cannot write .*run\.lock"), held(lock, "taken"):
        pass
    (tmp_path / "folder").mkdir()
    with (
        pytest.raises(NomoatError, match=r"cannot write .*folder"),
        held(tmp_path / "folder", "taken"),
    ):
        pass


def test_what_killed_processes_left_half_written_is_swept_and_nothing_else(tmp_path: Path) -> None:
    kept = [tmp_path / "a" / "b.part", tmp_path / ".a.fresh.part", tmp_path / "part"]
    left = [tmp_path / "a" / ".b.x1.part", tmp_path / "..sent.head.x2.part"]
    (tmp_path / "a").mkdir()
    for path in (*kept, *left):
        path.write_text("x")
    folder = tmp_path / ".model.x3.part"
    folder.mkdir()
    (folder / "half").write_text("x")
    now = kept[0].stat().st_mtime
    for path in (*left, folder):
        os.utime(path, (now - 3600, now - 3600))
    sweep(tmp_path, now)
    assert all(path.exists() for path in kept)
    assert not any(path.exists() for path in (*left, folder))


def test_an_error_on_a_full_or_read_only_disk_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "community.db"
    assert no_room(file) == ""
    assert no_room(tmp_path / "nowhere" / "community.db") == ""
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=0))
    assert "the disk is full" in no_room(file)
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)
    assert "is the disk read-only?" in no_room(file)


def test_a_file_that_is_just_read_is_replaced_a_moment_later_where_windows_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, refused, waited = tmp_path / "state.json", [1, 1], []
    replace = os.replace

    def as_there(source: str, target: Path) -> None:
        if refused:
            refused.pop()
            raise PermissionError(13, "Access is denied")
        replace(source, target)

    monkeypatch.setattr(os, "replace", as_there)
    with pytest.raises(NomoatError, match="Access is denied"), replacing(path) as file:
        file.write(b"here, a refusal is one for good")
    refused.append(1)
    monkeypatch.setattr("nomoat.storage.atomic.sys.platform", "win32")
    monkeypatch.setattr("nomoat.storage.atomic.time.sleep", waited.append)
    with replacing(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"
    assert waited == list(MOVE_AGAIN_S[:2])
    assert sorted(tmp_path.iterdir()) == [path]
