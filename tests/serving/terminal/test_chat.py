"""A chat in a terminal: answers, Ctrl-C, ratings that stay at home."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from nomoat.aggregation.errors import BadData
from nomoat.lora.data.reading import read
from nomoat.lora.inference.chat_session import ChatSession, KeepRating
from nomoat.lora.inference.prompts import Message, Prompts
from nomoat.lora.inference.requests import Ended, Failed, Piece, Question, Sampling
from nomoat.serving.terminal.chat import Talk
from nomoat.serving.terminal.ratings import Ratings, training_rows
from nomoat.serving.voices import EngineVoices
from tests.serving.conftest import Versions


class Script:
    """An engine that answers from a script, as soon as it is asked."""

    context = 60

    def __init__(self) -> None:
        self.asked: list[Question] = []
        self.cancelled = 0
        self.broken: str | None = None

    def offer(self, voices: Any) -> None:
        """Anything goes."""

    def submit(self, question: Question, deliver: Callable[[Any], None]) -> Script:
        self.asked.append(question)
        if self.broken:
            deliver(Failed(self.broken))
            return self
        deliver(Piece(f"[{question.voice or 'base'}] "))
        deliver(Piece("done"))
        deliver(Ended("stop", len(question.prompt), 2))
        return self

    def cancel(self) -> None:
        self.cancelled += 1

    def close(self) -> None:
        """Nothing to end."""


class Shown:
    """A talk with a script, and what it showed."""

    def __init__(self, source: Versions, prompts: Prompts, home: Path, width: int = 100) -> None:
        self.engine, self.out = Script(), io.StringIO()
        self.session = ChatSession(("base", "community", "personal"), "community")
        self.home = home
        self.lines: Iterator[str] = iter(())
        self.talk = Talk(
            self.session,
            EngineVoices(self.engine, source),
            prompts,
            Sampling(8),
            Console(file=self.out, width=width, force_terminal=False),
            Ratings.of(home),
            self._read,
            lambda: 1_700_000_000.0,
        )

    def _read(self, _: str) -> str:
        try:
            return next(self.lines)
        except StopIteration:
            raise EOFError from None

    def type(self, *lines: str) -> str:
        self.lines = iter(lines)
        self.talk.run()
        return self.out.getvalue()


@pytest.fixture
def shown(source: Versions, prompts: Prompts, tmp_path: Path) -> Shown:
    return Shown(source, prompts, tmp_path)


def test_answers_are_shown_and_go_on(shown: Shown) -> None:
    text = shown.type("one", "two", "/quit", "never asked")
    assert text.count("[community@2] done") == 2
    assert len(shown.engine.asked) == 2
    assert len(shown.engine.asked[1].prompt) > len(shown.engine.asked[0].prompt)


def test_a_comparison_shows_every_voice_from_one_batch(shown: Shown) -> None:
    text = shown.type("/compare", "one")
    for voice in ("base", "community", "personal"):
        assert voice in text
    assert "[base] done" in text
    assert {q.voice for q in shown.engine.asked} == {"", "community@2", "personal"}
    assert len({q.prompt for q in shown.engine.asked}) == 1


def test_ctrl_c_stops_the_answer_and_not_the_chat(
    shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = []

    def interrupted(self: Script, question: Question, deliver: Callable[[Any], None]) -> Script:
        deliver(Piece("half "))
        if not stopped:
            stopped.append(question)

            class Interrupting(Piece):
                @property
                def text(self) -> str:  # type: ignore[override]
                    raise KeyboardInterrupt

            deliver(object.__new__(Interrupting))
        deliver(Piece("more"))
        deliver(Ended("stop", 1, 2))
        return self

    monkeypatch.setattr(Script, "submit", interrupted)
    text = shown.type("one", "two")
    assert "[stopped]" in text
    assert shown.engine.cancelled == 1
    assert text.count("half more") == 1  # the second question was answered whole
    assert shown.session.messages[1] == Message("assistant", "half ")


def test_the_end_of_input_and_ctrl_c_at_the_prompt_leave(
    shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown.type()

    def interrupted(_: str) -> str:
        raise KeyboardInterrupt

    object.__setattr__(shown.talk, "read", interrupted)
    shown.talk.run()


def test_a_failure_is_one_line_and_the_question_is_taken_back(shown: Shown) -> None:
    shown.engine.broken = "out of memory"
    assert "community: out of memory" in shown.type("one")
    assert shown.session.messages == ()


def test_the_oldest_exchanges_go_when_the_context_is_full(shown: Shown) -> None:
    text = shown.type(*(f"question number {n}" for n in range(8)))
    assert "no longer fit" in text
    assert all(len(q.prompt) <= Script.context for q in shown.engine.asked)
    assert "the model's context is 60" in shown.type("word " * 100)


def test_ratings_stay_in_one_private_file_and_become_rows(shown: Shown, tmp_path: Path) -> None:
    shown.type(
        "/system be brief", "one", "/rate 2", "/again", "/rate 5", "two", "/rate 4", "/rate 4"
    )
    ratings = Ratings.of(tmp_path)
    assert ratings.path.stat().st_mode & 0o077 == 0
    rows = training_rows(ratings, 4)
    assert [len(row["messages"]) for row in rows] == [
        3,
        5,
    ]  # one of two stars is none; no row twice
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    first, second = read(file).conversations
    assert [turn.trained for turn in second.turns if turn.role == "assistant"] == [False, True]
    assert first.turns[-1].text == "[community@2] done"
    kept = [json.loads(line) for line in ratings.path.read_text().splitlines()]
    assert [row["stars"] for row in kept] == [2, 5, 4, 4]
    assert kept[0]["voice"] == "community@2"  # not the name that soon means another


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    ratings = Ratings.of(tmp_path)
    ratings.keep(KeepRating("base", 5, (Message("user", "a"), Message("assistant", "b"))), "x", 1)
    with ratings.path.open("a") as file:
        file.write("{broken\n")
    with pytest.raises(BadData, match=r"ratings.jsonl:2 is no rating"):
        training_rows(ratings, 1)


def test_a_conversation_is_saved_as_a_row(shown: Shown, tmp_path: Path) -> None:
    file = tmp_path / "saved.jsonl"
    shown.type("one", f"/save {file}", "/save /proc/none/x", "/save a\0b")
    (row,) = [json.loads(line) for line in file.read_text().splitlines()]
    assert [m["role"] for m in row["messages"]] == ["user", "assistant"]
    assert "cannot write /proc/none/x" in shown.out.getvalue().replace("\n", " ")
