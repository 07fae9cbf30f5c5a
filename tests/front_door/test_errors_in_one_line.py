"""What was typed wrongly, or not answered, is one line on stderr with an exit code."""

from __future__ import annotations

import io
import sys

import pytest

from nomoat import __main__ as front_door


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("join", "Missing argument 'LINK' (see nomoat join --help)"),
        ("joi", "No such command 'joi'. Did you mean 'join'? (see nomoat --help)"),
        ("invite --uses 0", "0 is not in the range x>=1 (see nomoat invite --help)"),
        ("simulate --round 3", "(see nomoat simulate --help)"),
        ("join https://a.b --data x", "is no link nomoat://join/…; copy it whole"),
        ("join nomoat://join/kwGqaW52aXRhdGlv --data x", "is cut short or mistyped; copy it whole"),
    ],
)
def test_what_was_typed_wrongly_is_one_line(
    typed: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["nomoat", *typed.split()])
    assert front_door._run() in (1, 2)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("nomoat: ")
    assert err.count("\n") == 1
    assert said in err


@pytest.mark.parametrize(("end", "code"), [(EOFError, 1), (KeyboardInterrupt, 130)])
def test_a_question_that_nobody_answers_does_nothing_and_says_so(
    end: type[BaseException],
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def nobody(*_: object) -> str:
        raise end

    monkeypatch.setattr(sys, "argv", ["nomoat", "join", "-", "--data", "x"])
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr("click.termui.hidden_prompt_func", nobody)
    assert front_door._run() == code
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == f"nomoat: {front_door.UNANSWERED if code == 1 else front_door.INTERRUPTED_WORDS}"
