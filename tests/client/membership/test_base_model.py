"""A base that the coordinator names is opened only if the owner says so, and only if it trains."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nomoat.aggregation.errors import BadData, UsageError
from nomoat.client.cli import join as command
from nomoat.client.membership import base_model
from nomoat.client.membership.base_model import asked_for, check_trains, fetchable
from nomoat.lora.model.examination import Examined
from nomoat.lora.model.files import content_hash, resolve
from nomoat.lora.model.left_out import LeftOut
from nomoat.lora.workers.examining import Finding, remembered
from nomoat.lora.workers.jobs import SpecJob


def info(**changes: Any) -> Any:
    return SimpleNamespace(**{
        "name": "town", "base_model": "someone/some-model", "base_hash": b"h" * 32, "seq_len": 128,
        **changes,
    })  # fmt: skip


@pytest.mark.parametrize("yes", [True, False])
def test_without_base_and_without_anybody_to_ask_nothing_is_opened(
    yes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("/etc\n"))
    with pytest.raises(UsageError, match=r"builds on 'someone/some-model': .* --base FOLDER, or"):
        command._ask_base(yes, lambda: None)(info())


def test_a_place_on_this_machine_is_no_answer_that_a_coordinator_may_suggest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "private" / "folder").mkdir(parents=True)
    for name in ("private/folder", str(tmp_path), "../x", "~/x", "folder", "a/../b"):
        assert not fetchable(info(base_model=name)), name
    assert fetchable(info())


def test_what_a_coordinator_names_cannot_draw_on_the_terminal() -> None:
    assert "\x1b" not in str(asked_for(info(base_model="\x1b[2Jsome-model")))


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    def make(**config: Any) -> Path:
        (tmp_path / "config.json").write_text(json.dumps(config))
        (tmp_path / "model.safetensors").write_bytes(b"")
        return tmp_path

    return make


def test_a_base_that_reads_less_than_the_communitys_rows_is_refused(
    folder: Callable[..., Path],
) -> None:
    base = folder(model_type="gpt2", n_positions=48)
    with pytest.raises(UsageError, match="the model reads 48 tokens; --seq-len 48"):
        check_trains(info(), str(base), "cpu")


def test_a_family_whose_layers_are_known_is_not_loaded_to_be_held_in_fewer_bits(
    folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base_model, "Pool", None)
    assert check_trains(info(), str(folder(model_type="llama")), "cpu", 4) == ""


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_a_base_is_examined_once_by_attaching_in_a_process_of_its_own(
    folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, family: str
) -> None:
    asked: list[Any] = []

    class Pool:
        def __init__(self, *given: Any, **options: Any) -> None:
            asked.append((given, options))

        def __enter__(self) -> Pool:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def submit(self, job: SpecJob) -> SpecJob:
            asked.append(job)
            return job

    found = Examined(None, (LeftOut("model.vision", "text never passes", 0.5),), 256)  # type: ignore[arg-type]
    monkeypatch.setattr(base_model, "Pool", Pool)
    monkeypatch.setattr(base_model, "examined", lambda future: found)
    monkeypatch.setattr(base_model, "examinations", lambda: tmp_path / "cache")
    base = folder(model_type=family, text_config={"max_position_embeddings": 256})
    for _ in range(2):
        told = check_trains(info(), str(base), "cpu", 16)
        assert told == "Left as they are: model.vision (50.0% of the values): text never passes."
    ((_, options), job) = asked
    assert options == {"shared": False, "bits": 16, "base_hash": b"h" * 32}
    assert job == SpecJob(1, 1.0)
    with pytest.raises(UsageError, match="the model reads 256 tokens"):
        check_trains(info(seq_len=300), str(folder(model_type=family)), "cpu")
    check_trains(info(base_hash=b"o" * 32), str(base), "cpu")
    assert len(asked) == 4  # another base is another question


def test_an_examination_that_refused_or_was_damaged_is_asked_for_again(tmp_path: Path) -> None:
    found = Examined(None, (), 256)  # type: ignore[arg-type]

    def refuses() -> Examined:
        raise BadData("not causal")

    for _ in range(2):
        with pytest.raises(BadData, match="not causal"):
            remembered(tmp_path, b"h" * 32, refuses)
    assert remembered(tmp_path, b"h" * 32, lambda: found).context == 256
    assert remembered(tmp_path, b"h" * 32, refuses).context == 256
    (file,) = tmp_path.iterdir()
    for damaged in (b"", b"[]", b"{}", b'{"context": "x", "told": ""}'):
        file.write_bytes(damaged)
        with pytest.raises(BadData, match="not causal"):
            remembered(tmp_path, b"h" * 32, refuses)


@pytest.mark.parametrize("writable", ["folder", "file"])
def test_what_others_may_have_written_is_no_examination(tmp_path: Path, writable: str) -> None:
    cache, asked = tmp_path / "cache", []

    def examine() -> Examined:
        asked.append(1)
        return Examined(None, (), 256)  # type: ignore[arg-type]

    remembered(cache, b"h" * 32, examine)
    (file,) = cache.iterdir()
    file.write_text('{"context": 7, "told": "all \\u001b[2J is well"}')
    assert remembered(cache, b"h" * 32, examine) == Finding(7, "all  [2J is well")
    assert len(asked) == 1
    (cache if writable == "folder" else file).chmod(0o777)
    assert remembered(cache, b"h" * 32, examine).context == 256
    assert remembered(cache, b"h" * 32, examine).context == 256  # ours again
    assert len(asked) == 2


def test_a_base_that_every_machine_has_by_name_is_named_with_its_option(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said = str(asked_for(info(base_model="pocket")))
    assert "--base pocket, which is known here by that name" in said
    monkeypatch.chdir(tmp_path)
    base_model.check_base("pocket", content_hash(resolve("pocket")), "town")
    with pytest.raises(BadData, match="is not the base model of town"):
        base_model.check_base("pocket", b"h" * 32, "town")
