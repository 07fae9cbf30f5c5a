"""The owner's rows are shared out once, by their content, and wrong data is named."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from nomoat.aggregation.errors import BadData
from nomoat.client import shards as module
from nomoat.client.shards import prepare
from nomoat.lora.formats import read


def data(folder: Path, count: int) -> Path:
    path = folder / "data.jsonl"
    path.write_text("".join(json.dumps({"text": f"row number {i}"}) + "\n" for i in range(count)))
    return path


def texts(path: Path) -> set[str]:
    return {row.turns[0].text for row in read(path).conversations}


def test_every_row_is_on_one_side_and_about_the_share_is_kept(tmp_path: Path) -> None:
    found = prepare(data(tmp_path, 400), tmp_path / "shards", 0.1)
    train, kept = texts(found.train), texts(found.heldout)
    assert train | kept == {f"row number {i}" for i in range(400)}
    assert not train & kept
    assert 20 <= len(kept) <= 60
    assert (found.train_rows, found.heldout_rows) == (len(train), len(kept))


def test_a_row_never_changes_sides_when_the_file_grows(tmp_path: Path) -> None:
    before = prepare(data(tmp_path, 200), tmp_path / "shards", 0.1)
    kept = texts(before.heldout)
    train = texts(before.train)
    after = prepare(data(tmp_path, 400), tmp_path / "shards", 0.1)
    assert kept <= texts(after.heldout)
    assert train <= texts(after.train)


def test_an_unchanged_file_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = data(tmp_path, 10)
    first = prepare(path, tmp_path / "shards", 0.1)

    def read_again(_: Path) -> None:
        raise AssertionError

    monkeypatch.setattr(module, "read", read_again)
    assert prepare(path, tmp_path / "shards", 0.1) == first
    os.utime(path, ns=(1, 1))
    with pytest.raises(AssertionError):
        prepare(path, tmp_path / "shards", 0.1)


def test_two_rows_are_the_least(tmp_path: Path) -> None:
    found = prepare(data(tmp_path, 2), tmp_path / "shards", 0.1)
    assert (found.train_rows, found.heldout_rows) == (1, 1)
    with pytest.raises(BadData, match="at least 2"):
        prepare(data(tmp_path, 1), tmp_path / "shards", 0.1)


def test_missing_data_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"nothing\.jsonl does not exist"):
        prepare(tmp_path / "nothing.jsonl", tmp_path / "shards", 0.1)


def test_rows_chosen_to_measure_with_take_nothing_from_those_to_train_on(tmp_path: Path) -> None:
    own = data(tmp_path, 20)
    other = tmp_path / "kept.jsonl"
    other.write_text('{"text": "kept for measuring"}\n')
    found = prepare(own, tmp_path / "shards", 0.1, heldout_data=other)
    assert (found.train_rows, found.heldout_rows) == (20, 1)
    assert texts(found.heldout) == {"kept for measuring"}
    assert prepare(own, tmp_path / "shards", 0.1).heldout_rows < found.train_rows
    other.write_text("")
    with pytest.raises(BadData, match=r"kept\.jsonl"):
        prepare(own, tmp_path / "shards", 0.1, heldout_data=other)
