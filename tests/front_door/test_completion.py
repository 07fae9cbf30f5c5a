"""A shell that was given the completion is told commands and options as they are typed."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from nomoat.cli import app


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(
    ("typed", "word", "offered"),
    [
        ("nomoat fin", "fin", "finish"),
        ("nomoat adapter roll", "roll", "rollback"),
        ("nomoat join --min-p", "--min-p", "--min-participants"),
    ],
)
def test_a_shell_completes_commands_groups_and_options(
    shell: str, typed: str, word: str, offered: str
) -> None:
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1)}
    lines = {"_TYPER_COMPLETE_ARGS": typed, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    asked = {"_NOMOAT_COMPLETE": f"complete_{shell}", **words, **lines}
    done = CliRunner().invoke(app, [], env=asked)
    assert done.exit_code == 0, done.exception
    assert offered in done.stdout
    assert "simulate" not in done.stdout, word


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell_calls_this_command(
    shell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_NOMOAT_COMPLETE", f"source_{shell}")
    done = CliRunner().invoke(app, [])
    assert "_NOMOAT_COMPLETE=complete_" + shell in done.stdout
