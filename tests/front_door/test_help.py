"""Help names every command under the person who gives it, whole at any width."""

from __future__ import annotations

import re
import subprocess
import sys

import typer
from typer.testing import CliRunner

from nomoat.cli import app
from nomoat.help_by_person import PEOPLE, person_of


def helped(*command: str, columns: int = 50) -> str:
    environment = {"COLUMNS": str(columns), "PATH": "/usr/bin:/bin"}
    program = [sys.executable, "-P", "-m", "nomoat", *command, "--help"]
    return subprocess.run(program, capture_output=True, env=environment, check=True).stdout.decode()


def test_every_command_stands_under_one_person() -> None:
    known = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    named = [name for commands in PEOPLE.values() for name in commands]
    assert len(named) == len(set(named))
    assert known == set(named)
    assert person_of("join") == "To begin"
    shown = CliRunner().invoke(app, ["--help"]).stdout
    assert all(person in shown for person in PEOPLE)


def test_piped_help_has_no_boxes_and_no_name_is_cut_in_fifty_columns() -> None:
    first = helped()
    assert not set("╭│╰…") & set(first)
    assert list(PEOPLE) == re.findall(r"^(\S.*):$", first, re.M)[1:]
    join = helped("join")
    assert "--min-participants" in join
    assert "[default: 0.1]" in re.sub(r"\s+", " ", join)
    invitation = "The invitation: nomoat://join/"  # of an argument
    assert re.sub(r"\s+", " ", join).count(invitation) == 1
