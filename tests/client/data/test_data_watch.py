"""Data that is edited or deleted while a community runs is noticed, told, and acted upon."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nomoat.aggregation.errors import BadData
from nomoat.client.data.data_watch import Choice, DataWatch
from nomoat.client.data.secrets_scan import Allowlist
from nomoat.client.data.split import Split, data_stamp, forget, made, prepare


class Owner:
    """A data file with its watch, and what was told of it."""

    def __init__(self, folder: Path, choice: Choice) -> None:
        self.path, self.folder, self.told = folder / "d.jsonl", folder / "split", list[str | None]()
        self.write(10)
        self.split = self._prepare()
        told, forgotten = self.told.append, lambda: forget(self.folder)
        self.watch = DataWatch(choice, self._stamp, self._prepare, told, self._stamp(), forgotten)

    def write(self, rows: int) -> None:
        self.path.write_text("".join(json.dumps({"text": f"row {n}"}) + "\n" for n in range(rows)))

    def _stamp(self) -> str:
        return data_stamp(self.path, 0.1, Allowlist())

    def _prepare(self) -> Split:
        return prepare(self.path, self.folder, 0.1)


def test_data_as_it_was_is_trained_on_without_a_word(tmp_path: Path) -> None:
    owner = Owner(tmp_path, "refresh")
    assert owner.watch.rows(owner.split) is owner.split
    assert owner.told == [None]


def test_edited_data_is_trained_on_as_it_is_now(tmp_path: Path) -> None:
    owner = Owner(tmp_path, "refresh")
    owner.write(30)
    found = owner.watch.rows(owner.split)
    assert found.train_rows + found.heldout_rows == 30
    assert "was changed" in (owner.told[-1] or "")
    assert owner.watch.rows(found) is found
    assert owner.told[-1] is None


@pytest.mark.parametrize("gone", [False, True])
def test_a_kept_copy_is_trained_on_and_told(tmp_path: Path, gone: bool) -> None:
    owner = Owner(tmp_path, "keep")
    owner.path.unlink() if gone else owner.write(30)
    for _ in range(2):
        assert owner.watch.rows(owner.split) is owner.split
        assert ("gone" if gone else "changed") in (owner.told[-1] or "")


def test_nothing_is_trained_on_data_that_is_gone_broken_or_to_be_stopped_at(tmp_path: Path) -> None:
    owner = Owner(tmp_path, "stop")
    owner.write(30)
    with pytest.raises(BadData, match="nothing is trained until"):
        owner.watch.rows(owner.split)
    assert "changed" in (owner.told[-1] or "")
    other = Owner(tmp_path, "refresh")
    other.path.write_text('{"text": ')
    with pytest.raises(BadData, match=r"d\.jsonl:1"):
        other.watch.rows(other.split)
    other.path.unlink()
    with pytest.raises(BadData, match="gone"):
        other.watch.rows(other.split)
    assert "until it is back" in (other.told[-1] or "")
    other.write(10)
    assert other.watch.rows(other.split).train_rows + 1 >= 9


def test_the_copy_of_deleted_rows_is_deleted_too_and_comes_back_with_them(tmp_path: Path) -> None:
    owner = Owner(tmp_path, "refresh")
    aside = owner.path.rename(tmp_path / "aside")
    with pytest.raises(BadData, match="gone"):
        owner.watch.rows(owner.split)
    assert not any(path.exists() for path in (owner.split.train, owner.split.heldout))
    aside.rename(owner.path)  # the same file, its size and time as before
    again = owner.watch.rows(owner.split)
    assert again.train.exists()
    assert again.train_rows == owner.split.train_rows


def test_every_row_of_a_volunteer_is_counted_and_read_back(tmp_path: Path) -> None:
    rows = [{"text": f"row {n}"} for n in range(9)] + [{"text": ""}, {"text": "x", "train": False}]
    path = tmp_path / "d.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    split = prepare(path, tmp_path / "split", 0.1)
    lost = sum(each.count for each in split.dropped)
    assert split.read == 11 == split.train_rows + split.heldout_rows + split.secret_rows + lost
    assert made(tmp_path / "split") == split
    assert "2 not used" in split.line()
    assert made(tmp_path / "nowhere") is None
