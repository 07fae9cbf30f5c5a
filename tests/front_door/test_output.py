"""Every command works on any terminal: any encoding, narrow or dumb, with its reader gone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nomoat.client.membership.joining import WITHOUT_TORCH

ROW = {"prompt": "Grüße, 東京 🙂?", "completion": "☃ naïve café ✓ \u2028 🏳️‍🌈 ᚠ mail ö@exämple.org"}
NARROW = {"TERM": "dumb", "COLUMNS": "40", "NO_COLOR": "1"}


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    file = tmp_path / "größe ☃.jsonl"
    file.write_text(json.dumps(ROW, ensure_ascii=False) + "\n", "utf-8")
    return file


def run(
    *arguments: str, encoding: str, shell: str = "", program: tuple[str, str] = ("-m", "nomoat")
) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, **NARROW, "PYTHONIOENCODING": encoding}
    command = [sys.executable, *program, *arguments]
    if shell:
        command = ["bash", "-c", f'"$@" {shell}', "nomoat", *command]
    return subprocess.run(command, capture_output=True, env=environment, check=False, timeout=120)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_preview_is_shown_in_any_encoding(rows: Path, encoding: str) -> None:
    shows = ("data", "preview", str(rows), "--seq-len", "256")
    done = run(*shows, encoding=encoding, program=("-c", WITHOUT_TORCH))  # as `join` shows it
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False), done.stderr
    shown = done.stdout.decode(encoding)
    assert "\\u2603" in shown.replace("\n", "")


@pytest.mark.parametrize(
    "arguments", [("data", "scan", "ROWS"), ("invite", "/no/☃"), ("--help",), ("join", "☃")]
)
def test_a_command_says_what_it_has_to_where_the_encoding_is_ascii(
    rows: Path, arguments: tuple[str, ...]
) -> None:
    done = run(*(str(rows) if word == "ROWS" else word for word in arguments), encoding="ascii")
    assert b"Traceback" not in done.stderr
    assert b"Unicode" not in done.stderr
    assert done.stdout + done.stderr


@pytest.mark.parametrize("shell", ["| true", "2>&1 | true", ">&-", "2>&-", ">/dev/full"])
def test_a_reader_that_has_gone_is_no_traceback(shell: str) -> None:
    done = run("--help", encoding="utf-8", shell=shell)
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr
