"""Commands around an adapter: exports, combinations, comparisons, rows out of chats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from nomoat.aggregation.errors import BadData, UsageError
from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.cli import app
from nomoat.lora.inference.chat_session import KeepRating
from nomoat.lora.inference.prompts import Message
from nomoat.lora.model.adapter_folder import load_folder
from nomoat.server.community.versions import VersionStore
from nomoat.server.rounds.records import RoundRecord
from nomoat.serving.terminal.ratings import Ratings
from nomoat.serving.variants.distance import distances
from tests.serving.sources.conftest import community, peft_folder, run_folder

__all__ = ["community", "peft_folder", "run_folder"]


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False)


def refused(*arguments: str) -> str:
    with pytest.raises(UsageError) as problem:
        CliRunner().invoke(app, list(arguments), catch_exceptions=False, standalone_mode=False)
    return str(problem.value)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    file = tmp_path / "rows.jsonl"
    row = {"prompt": "def open(file):", "completion": "Open a file."}
    file.write_text(json.dumps(row) + "\n")
    return file


def test_a_version_is_written_with_its_history_and_a_card_of_the_hub(
    community: VersionStore, tmp_path: Path, adapters: dict[str, Adapter]
) -> None:
    where = ("--dir", str(tmp_path / "readers"))
    run("adapter", "export", str(tmp_path / "plain"), "--version", "0", *where)
    exported = load_folder(tmp_path / "plain")
    assert np.array_equal(exported.vector, adapters["community@1"].vector)
    readme = (tmp_path / "plain" / "README.md").read_text()
    assert "version 0" in readme
    assert "community's own evaluation split" in readme
    assert "no differential privacy" in readme
    assert "exists already" in refused("adapter", "export", str(tmp_path / "plain"), *where)
    done = run("adapter", "export", str(tmp_path / "hub"), "--to", "hub", *where)
    assert "the card is valid" in done.stderr
    assert "hf upload OWNER/Readers-community-1" in done.stderr
    card = (tmp_path / "hub" / "README.md").read_text()
    assert "base_model: org/tiny" in card
    assert "value: 2.9" in card  # the held-out loss of the newest version


def test_what_cannot_be_exported_is_one_line(run_folder: Path, tmp_path: Path) -> None:
    out, run_ = str(tmp_path / "out"), str(run_folder)
    assert "--to floppy" in refused("adapter", "export", out, "--to", "floppy", "--adapter", run_)
    assert "there is no 'personal'" in refused(
        "adapter", "export", out, "--which", "personal", "--adapter", run_
    )
    assert "--base-id" in refused("adapter", "export", out, "--to", "hub", "--adapter", run_)
    assert not (tmp_path / "out").exists()


def test_a_combination_is_the_weighted_sum_and_is_measured_first(
    run_folder: Path, peft_folder: Path, rows: Path, tmp_path: Path
) -> None:
    parts = (str(run_folder), str(peft_folder))
    out = tmp_path / "both"
    options = ("--weights", "1,0.5", "--eval", str(rows), "--json")
    done = run("adapter", "combine", str(out), *parts, *options)
    losses = json.loads(done.stdout)["losses"]
    assert losses.keys() == {"base", *parts, "together"}
    assert load_folder(out).spec.rank == 8
    assert f"{losses['together']:.4f}" in (out / "README.md").read_text()
    compared = json.loads(
        run("adapter", "diff", parts[0], str(out), "--eval", str(rows), "--json").stdout
    )
    assert compared["losses"][str(out)] == pytest.approx(losses["together"], abs=1e-5)
    assert {"question", "base", parts[0], str(out)} == compared["answers"][0].keys()
    assert compared["layers"][0]["moved"] >= compared["layers"][-1]["moved"] > 0


def test_a_difference_is_told_for_each_domain_of_the_rows(
    run_folder: Path, peft_folder: Path, tmp_path: Path
) -> None:
    file, parts = tmp_path / "domains.jsonl", (str(run_folder), str(peft_folder))
    said = {"mail": ("def send(to):", "Send it."), "files": ("def open(f):", "Open a file. It is.")}
    rows = [{"prompt": p, "completion": c, "domain": d} for d, (p, c) in said.items()]
    file.write_text("".join(json.dumps(row) + "\n" for row in (*rows, rows[0], {"text": "more"})))
    options = ("--eval", str(file), "--json", "--prompts", "0")
    found = json.loads(run("adapter", "diff", *parts, *options, "--by", "domain").stdout)
    assert {name: group["rows"] for name, group in found["groups"].items()} == {
        "files": 1, "mail": 2,
    }  # fmt: skip
    alone = tmp_path / "mail.jsonl"
    alone.write_text(json.dumps(rows[0]) + "\n")
    mail = json.loads(run("adapter", "diff", *parts, "--eval", str(alone), "--json").stdout)
    assert found["groups"]["mail"]["losses"] == pytest.approx(mail["losses"], abs=1e-5)
    with pytest.raises(BadData, match="the fields found are domain"):
        run("adapter", "diff", *parts, *options, "--by", "topic")
    assert "--eval" in refused("adapter", "diff", *parts, "--by", "domain")


def test_a_difference_tells_what_each_volunteer_measured(
    community: VersionStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers = str(tmp_path / "readers")
    for number, losses in enumerate(({"ada": 3.0, "ben": 2.0}, {"ada": 2.5, "cleo": 1.0})):
        digest = community.get(number).version.adapter.hex()
        record = RoundRecord(number, committed=True, reason="", losses=losses, adapter=digest)
        community.database.put_round(number, True, json.dumps(record.as_json()), b"")
    out = tmp_path / "plain"
    run("adapter", "export", str(out), "--version", "0", "--dir", readers)
    monkeypatch.chdir(readers)
    found = json.loads(run("adapter", "diff", "0", "1", "--json").stdout)
    assert found["volunteers"] == {"ada": {"0": 3.0, "1": 2.5}}
    assert "-0.5000" in run("adapter", "diff", "0", "1").stdout
    assert json.loads(run("adapter", "diff", "0", str(out), "--json").stdout)["volunteers"] == {}


def test_a_combination_that_makes_no_sense_is_refused(
    run_folder: Path, peft_folder: Path, rows: Path, tmp_path: Path
) -> None:
    out, parts = str(tmp_path / "both"), (str(run_folder), str(peft_folder))
    assert "two adapters" in refused("adapter", "combine", out, parts[0], "--eval", str(rows))
    assert "--eval" in refused("adapter", "combine", out, *parts)
    for wrong in ("1", "1,x", "1,inf"):
        said = refused("adapter", "combine", out, *parts, "--eval", str(rows), "--weights", wrong)
        assert "--weights" in said
    assert not Path(out).exists()


def test_distances_are_those_of_the_dense_matrices(adapters: dict[str, Adapter]) -> None:
    first, second = adapters["community@1"], adapters["community@2"]
    dense = {
        layer.name.removeprefix("base_model.model."): (
            first.spec.scale * (b @ a),
            second.spec.scale * (other_b @ other_a),
        )
        for (layer, a, b), (_, other_a, other_b) in zip(
            first.factors(), second.factors(), strict=True
        )
    }
    found = distances(first, second)
    assert len(found) == len(dense)
    for layer in found:
        before, after = dense[layer.layer]
        assert layer.norm == pytest.approx(np.linalg.norm(before), rel=1e-4)
        assert layer.moved == pytest.approx(np.linalg.norm(after - before), rel=1e-4)
    assert all(layer.moved < 1e-4 for layer in distances(first, first))


def test_good_answers_become_rows_and_nothing_is_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOMOAT_HOME", str(tmp_path / "home"))
    out = tmp_path / "rows.jsonl"
    assert "no answer rated" in refused("data", "from-chats", str(out))
    for stars in (1, 5):
        said = (Message("user", f"q{stars}"), Message("assistant", "a"))
        Ratings.of(tmp_path / "home").keep(KeepRating("base", stars, said), "x", 1.0)
    run("data", "from-chats", str(out))
    (row,) = [json.loads(line) for line in out.read_text().splitlines()]
    assert row["messages"][0]["content"] == "q5"
    assert out.stat().st_mode & 0o077 == 0
    assert "exists already" in refused("data", "from-chats", str(out))
