"""The owner's rows are shared out once, by their content, and wrong data is named."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nomoat.aggregation.errors import BadData, NomoatError
from nomoat.client.data import secrets_allowlist as kept_list
from nomoat.client.data import split as module
from nomoat.client.data.secrets_scan import Allowlist
from nomoat.client.data.split import forget, prepare
from nomoat.data import app as commands
from nomoat.lora.data.reading import read


def data(folder: Path, count: int) -> Path:
    path = folder / "data.jsonl"
    path.write_text("".join(json.dumps({"text": f"row number {i}"}) + "\n" for i in range(count)))
    return path


def texts(path: Path) -> set[str]:
    return {row.turns[0].text for row in read(path).conversations}


def test_every_row_is_on_one_side_and_about_the_share_is_kept(tmp_path: Path) -> None:
    found = prepare(data(tmp_path, 400), tmp_path / "shards", 0.1)
    train, measured = texts(found.train), texts(found.heldout)
    assert train | measured == {f"row number {i}" for i in range(400)}
    assert not train & measured
    assert 20 <= len(measured) <= 60
    assert (found.train_rows, found.heldout_rows) == (len(train), len(measured))


def test_a_row_never_changes_sides_when_the_file_grows(tmp_path: Path) -> None:
    before = prepare(data(tmp_path, 200), tmp_path / "shards", 0.1)
    measured = texts(before.heldout)
    train = texts(before.train)
    after = prepare(data(tmp_path, 400), tmp_path / "shards", 0.1)
    assert measured <= texts(after.heldout)
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


def secret_data(folder: Path) -> Path:
    path = folder / "data.jsonl"
    rows = [f"row number {i}" for i in range(20)] + ["write to jane.doe@wikipedia.org", "the end"]
    path.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    return path


def test_a_row_that_looks_secret_is_on_neither_side_until_it_is_kept_on_purpose(
    tmp_path: Path,
) -> None:
    path = secret_data(tmp_path)
    found = prepare(path, tmp_path / "shards", 0.1)
    assert found.secret_rows == 1
    assert not any("jane" in text for text in texts(found.train) | texts(found.heldout))
    shown = (tmp_path / "shards" / module.FINDINGS).read_text()
    assert "E-mail address" in shown
    assert "jane.doe@wikipedia.org" not in shown
    (finding,) = module.scan_rows(read(path)).findings
    for allowlist in (
        Allowlist(marks=frozenset({finding.mark})),
        Allowlist(kinds=frozenset({finding.kind})),
        Allowlist(origins=frozenset({finding.origin})),
    ):
        again = prepare(path, tmp_path / "shards", 0.1, allowlist)
        assert again.secret_rows == 0
        assert any("jane" in text for text in texts(again.train) | texts(again.heldout))
    assert prepare(path, tmp_path / "shards", 0.1).secret_rows == 1  # and is left out again


def test_the_commands_scan_and_keep_do_what_training_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOMOAT_HOME", str(tmp_path / "home"))
    path, run = secret_data(tmp_path), CliRunner().invoke
    scanned = json.loads(run(commands, ["scan", str(path), "--json"]).stdout)
    assert scanned["left_out"] == [f"{path.resolve()}:21"]
    assert "nothing" in run(commands, ["keep"]).stdout
    run(commands, ["keep", scanned["findings"][0]["mark"]])
    assert json.loads(run(commands, ["scan", str(path), "--json"]).stdout)["left_out"] == []
    assert prepare(path, tmp_path / "s", 0.1, kept_list.load(tmp_path / "home")).secret_rows == 0
    (tmp_path / "home" / kept_list.FILE_NAME).write_text("{")
    with pytest.raises(NomoatError, match="damaged"):
        kept_list.load(tmp_path / "home")


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


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"of": 1}'])
def test_a_damaged_stamp_is_made_anew_and_copies_of_rows_are_for_their_owner_alone(
    tmp_path: Path, damage: str
) -> None:
    path, shards = data(tmp_path, 20), tmp_path / "shards"
    first = prepare(path, shards, 0.1)
    (shards / "stamp.json").write_text(damage)
    assert prepare(path, shards, 0.1) == first
    assert shards.stat().st_mode & 0o077 == 0
    assert all(file.stat().st_mode & 0o077 == 0 for file in shards.iterdir())
    forget(shards)
    assert {file.name for file in shards.iterdir()} == {"stamp.json", "left-out.txt"}
    assert prepare(path, shards, 0.1).train.exists()
