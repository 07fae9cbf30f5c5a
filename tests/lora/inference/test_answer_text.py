"""Text comes out whole, and stops where it is told to."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nomoat.lora.inference.answer_text import AnswerText


def by_bytes(ids: Sequence[int]) -> str:
    """A decoder whose tokens are bytes."""
    return bytes(ids).decode("utf-8", errors="replace")


def told(text: str, stop: tuple[str, ...] = ()) -> tuple[list[str], AnswerText]:
    answer, pieces = AnswerText(by_bytes, stop), []
    for token in text.encode():
        pieces.append(answer.add(token))
        if answer.stopped:
            return pieces, answer
    return [*pieces, answer.flush()], answer


def test_a_character_of_several_tokens_comes_whole() -> None:
    pieces, _ = told("é🙂")
    assert pieces == ["", "é", "", "", "", "🙂", ""]


def test_half_a_character_at_the_end_is_left_out() -> None:
    answer = AnswerText(by_bytes)
    assert [answer.add(token) for token in "aé".encode()[:2]] == ["a", ""]
    assert answer.flush() == ""


def test_bytes_that_are_no_character_hold_nothing_back_for_long() -> None:
    answer = AnswerText(by_bytes)
    pieces = [answer.add(token) for token in b"\x80\x80\x80\x80\x80a"]
    assert "".join(pieces).endswith("a")
    assert any(pieces[:4])


def test_a_stop_text_ends_the_answer_and_is_not_part_of_it() -> None:
    pieces, answer = told("one\n\ntwo", ("\n\n",))
    assert "".join(pieces) == "one"
    assert answer.stopped


def test_what_only_began_like_a_stop_text_comes_later() -> None:
    pieces, answer = told("a<b", ("<end>",))
    assert pieces == ["a", "", "<b", ""]
    assert not answer.stopped
    assert "".join(told("a<en", ("<end>",))[0]) == "a<en"


@settings(max_examples=30, deadline=None)
@given(st.text(max_size=12), st.lists(st.text(min_size=1, max_size=3), max_size=2))
def test_pieces_are_the_text_before_the_first_stop(text: str, stop: list[str]) -> None:
    text = text.replace("\N{REPLACEMENT CHARACTER}", "?")
    pieces, answer = told(text, tuple(stop))
    places = [text.find(s) for s in stop if s in text]
    # With several stop texts the one that is complete first ends the answer.
    ends = [text.find(s) + len(s) for s in stop if s in text]
    if not places:
        assert "".join(pieces) == text
        assert not answer.stopped
    else:
        assert answer.stopped
        assert text.startswith("".join(pieces))
        assert len("".join(pieces)) <= min(ends)
        assert not any(s in "".join(pieces) for s in stop)


@pytest.mark.parametrize("stop", [(), ("",)])
def test_an_empty_stop_text_stops_nothing(stop: tuple[str, ...]) -> None:
    assert "".join(told("abc", stop)[0]) == "abc"
