"""What cannot be answered or exported: one line, the documented exit code, nothing left behind."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nomoat.__main__ import main
from nomoat.aggregation.errors import BadData, DoesNotFit, NomoatError, UsageError
from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.cli import app
from nomoat.lora.model.adapter_folder import save_folder
from tests.serving.sources.conftest import community, peft_folder, run_folder

__all__ = ["community", "peft_folder", "run_folder"]


def refused(*arguments: str) -> NomoatError:
    """The error of a command that cannot be; of one line, whatever the command."""
    with pytest.raises(NomoatError) as problem:
        CliRunner().invoke(app, list(arguments), catch_exceptions=False, standalone_mode=False)
    assert "\n" not in str(problem.value)
    return problem.value


@pytest.fixture
def unsigned(tmp_path: Path, tiny_model: Path, adapters: dict[str, Adapter]) -> Path:
    """An adapter that does not say of which content its base is, as other programs write them."""
    folder = tmp_path / "unsigned"
    save_folder(adapters["personal"], str(tiny_model), folder, "# Mine\n", b"")
    return folder


@pytest.mark.parametrize("command", ["chat", "serve"])
def test_an_adapter_of_another_base_is_named_as_one(command: str, run_folder: Path) -> None:
    problem = refused(command, "--adapter", str(run_folder), "--base", "pocket", "--port", "0") \
        if command == "serve" else \
        refused(command, "--adapter", str(run_folder), "--base", "pocket")  # fmt: skip
    assert isinstance(problem, BadData)
    assert "not the one the adapter was trained on" in str(problem)


@pytest.mark.parametrize("engine", ["peft", "gguf"])
def test_an_adapter_of_other_layers_is_refused_where_no_hash_says_so(
    engine: str, unsigned: Path
) -> None:
    problem = refused("chat", "--adapter", str(unsigned), "--base", "pocket", "--engine", engine)
    assert isinstance(problem, BadData)


def test_an_export_onto_another_base_leaves_nothing(unsigned: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for target in ("merged", "gguf"):
        options = ("--adapter", str(unsigned), "--base", "pocket", "--to", target)
        assert isinstance(refused("adapter", "export", str(out), *options), BadData)
        assert not out.exists()


@pytest.mark.parametrize(("engine", "stored"), [("peft", "float32"), ("gguf", "f16")])
def test_a_model_bigger_than_the_memory_is_not_begun(
    engine: str, stored: str, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nomoat.serving.engines.free_bytes", lambda: 10_000)
    problem = refused("chat", "--base", str(tiny_model), "--engine", engine)
    assert isinstance(problem, DoesNotFit)
    assert f"GB in {stored}" in str(problem)
    assert "--quant" not in str(problem)  # no form of it fits either


def test_what_would_fit_is_named(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nomoat.serving.engines.free_bytes", lambda: 150_000)
    problem = refused("serve", "--base", str(tiny_model), "--engine", "peft", "--port", "0")
    assert "--engine gguf --quant q8_0 would fit" in str(problem)


def test_ids_and_numbers_that_do_not_exist_are_answered_with_those_that_do(
    run_folder: Path, community: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path / "readers")
    for command in (("chat", "--adapter", "99"), ("serve", "--adapter", "99", "--port", "0")):
        problem = refused(*command)
        assert isinstance(problem, UsageError)
        assert "there are base, community, community@1, community@0" in str(problem)
    assert "neither a folder nor a version" in str(refused("chat", "--adapter", "nowhere"))


def test_a_busy_port_is_one_line_before_a_model_is_loaded(
    tiny_model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nomoat.serving.engines.running", None)  # never reached
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        monkeypatch.setattr(
            "sys.argv", ["nomoat", "serve", "--base", str(tiny_model), "--port", port]
        )
        with pytest.raises(SystemExit) as end:
            main()
    assert end.value.code == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert f"cannot listen on 127.0.0.1:{port}" in line


def test_a_base_without_a_template_is_said_and_answers_all_the_same(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = json.loads((tiny_model / "tokenizer_config.json").read_text())
    assert "chat_template" not in config
    done = CliRunner().invoke(
        app,
        ["chat", "--base", str(tiny_model), "--engine", "peft", "--max-tokens", "2"],
        input="hi\n",
    )
    assert done.exit_code == 0, done.output
    assert "the base has no chat template: questions are put as plain text" in done.stderr
