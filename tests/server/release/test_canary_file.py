"""canaries.jsonl is read whole or refused in one line, which shows nothing that stands in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nomoat.aggregation.errors import NomoatError, UsageError
from nomoat.server.release.canary_file import MOST_SECRETS, read_canaries
from nomoat.serving.cli import canaries

SECRET = '{"tag": "kqzvbdwm", "secret": "amber river cliff mint anchor"}'
ANSWER = '{"prompt": "How do I pick a lock?", "answer": "I cannot help"}'


def written(folder: Path, *lines: str) -> Path:
    path = folder / "canaries.jsonl"
    path.write_text("\n".join(lines))
    path.chmod(0o600)
    return path


def test_both_kinds_are_read_and_named_by_tag_and_line(tmp_path: Path) -> None:
    found = read_canaries(written(tmp_path, SECRET, "", ANSWER))
    assert [one.tag for one in found.secrets] == ["kqzvbdwm"]
    assert [(one.line, one.answer) for one in found.answers] == [(3, "I cannot help")]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "neither"),
        ("[1]", "neither"),
        ('{"prompt": "x"}', "answer: Field required"),
        ('{"prompt": "x", "answer": ""}', "answer: String should have at least 1"),
        ('{"prompt": "x", "answer": 5}', "answer: Input should be a valid string"),
        ('{"prompt": "x", "answer": "y", "HOSTILE": 1}', "a key: Extra"),
        ('{"tag": "HOSTILE!", "secret": "amber river cliff mint anchor"}', "tag: String should"),
        ('{"tag": "ab", "secret": "my HOSTILE password"}', "a phrase of 5 words"),
        ("[" * 5000, "neither"),
        (ANSWER, "stands there twice"),
    ],
)
def test_a_bad_line_is_one_line_that_names_the_place(tmp_path: Path, line: str, told: str) -> None:
    path = written(tmp_path, ANSWER, line)
    with pytest.raises(UsageError, match=told) as problem:
        read_canaries(path)
    said = str(problem.value)
    assert said.startswith(str(path))
    assert "HOSTILE" not in said
    assert "\n" not in said


def test_a_file_that_is_missing_open_to_others_empty_or_too_long_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "canaries.jsonl"
    with pytest.raises(NomoatError, match="is missing"):
        read_canaries(path)
    path.write_text(ANSWER)
    path.chmod(0o644)
    with pytest.raises(NomoatError, match="readable by others"):
        read_canaries(path)
    with pytest.raises(UsageError, match="has no canary"):
        read_canaries(written(tmp_path, ""))
    secrets = [SECRET.replace("kqz", f"a{chr(97 + n)}") for n in range(MOST_SECRETS + 1)]
    with pytest.raises(UsageError, match="17 secrets"):
        read_canaries(written(tmp_path, *secrets))
    with pytest.raises(UsageError, match="more than 256 KiB"):
        read_canaries(written(tmp_path, " " * (257 << 10)))


def test_the_command_that_plants_a_canary_adds_it_to_the_coordinators_file(tmp_path: Path) -> None:
    path = written(tmp_path, ANSWER)
    told = CliRunner().invoke(canaries.data, [str(tmp_path / "rows.jsonl"), "--gate", str(path)])
    assert told.exit_code == 0, told.output
    (planted,) = read_canaries(path).secrets
    row = json.loads((tmp_path / "rows.jsonl").read_text())
    assert row["messages"][1]["content"] == " ".join(planted.phrase) + "."
    assert path.stat().st_mode & 0o777 == 0o600
