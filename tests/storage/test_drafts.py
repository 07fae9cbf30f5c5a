"""A folder is filled whole or not at all, whatever interrupts it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nomoat.aggregation.errors import NomoatError, UsageError
from nomoat.storage import drafts
from nomoat.storage.drafts import filling


def fill(root: Path) -> None:
    with filling(root, "zz.toml") as draft:
        (draft / "keys").mkdir(mode=0o700)
        (draft / "keys" / "a.key").write_text("secret")
        (draft / "zz.toml").write_text("whole")


def names(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


@pytest.mark.parametrize("there", [True, False])
def test_a_filled_folder_holds_what_was_written_and_no_draft(tmp_path: Path, there: bool) -> None:
    root = tmp_path / "a" / "b"
    if there:
        root.mkdir(parents=True)
        (root / "mine").write_text("mine")
    fill(root)
    assert names(root) == sorted(["keys", "keys/a.key", "zz.toml"] + ["mine"] * there)
    assert (root / "keys").stat().st_mode & 0o777 == 0o700


def test_an_error_leaves_no_folder_that_was_not_there(tmp_path: Path) -> None:
    with pytest.raises(NomoatError), filling(tmp_path / "a" / "b", "zz.toml") as draft:
        draft.mkdir()
    assert names(tmp_path) == []


def test_nothing_that_is_there_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    with pytest.raises(UsageError, match="keys exists already"):
        fill(tmp_path)
    assert names(tmp_path) == ["keys"]


@pytest.mark.parametrize("moves", [0, 1, 2])
def test_what_a_killed_process_left_is_taken_back(tmp_path: Path, moves: int) -> None:
    """A child that ends after `moves` renames, without cleaning anything up."""
    root = tmp_path / "town"
    child = os.fork()
    if not child:
        rename, left = os.rename, [moves]

        def killed(old: Path, new: Path) -> None:
            if not left[0]:
                os._exit(0)
            left[0] -= 1
            rename(old, new)

        drafts.os.rename = killed  # type: ignore[attr-defined]
        fill(root)
        os._exit(0)
    os.waitpid(child, 0)
    if moves < 2:
        assert (root / drafts.DRAFT).exists()
        fill(root)
    assert names(root) == ["keys", "keys/a.key", "zz.toml"]


def test_two_cannot_fill_a_folder_at_once(tmp_path: Path) -> None:
    with filling(tmp_path / "town", "zz.toml") as draft:
        (draft / "zz.toml").write_text("first")
        with pytest.raises(NomoatError, match="another process"):
            fill(tmp_path / "town")
    assert (tmp_path / "town" / "zz.toml").read_text() == "first"


def test_a_move_that_fails_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = os.rename

    def refused(old: Path, new: Path) -> None:
        if new.name == "zz.toml":
            raise OSError(28, "No space left on device")
        rename(old, new)

    monkeypatch.setattr(drafts.os, "rename", refused)
    with pytest.raises(NomoatError, match="No space left"):
        fill(tmp_path / "town")
    assert names(tmp_path) == []
