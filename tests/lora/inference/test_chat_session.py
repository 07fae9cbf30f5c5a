"""A chat decides what to do from what is typed, in every state."""

from __future__ import annotations

import pytest

from nomoat.lora.inference.chat_session import Ask, ChatSession, KeepRating, Quit, Save, Say
from nomoat.lora.inference.prompts import Message

VOICES = ("base", "community", "personal")
COMMANDS = (
    *(
        "/base",
        "/community",
        "/personal",
        "/compare",
        "/rate 4",
        "/rate",
        "/rate 9",
        "/better base",
    ),
    *("/system be brief", "/again", "/new", "/save x.jsonl", "/save", "/quit", "/help", "/nope"),
)


def chat(**changes: object) -> ChatSession:
    return ChatSession(VOICES, "community", **changes)  # type: ignore[arg-type]


def user(text: str) -> Message:
    return Message("user", text)


def assistant(text: str) -> Message:
    return Message("assistant", text)


def test_the_conversation_goes_on_with_what_was_answered() -> None:
    session = chat()
    assert session.typed("one") == [Ask(("community",), (user("one"),))]
    session.answered("community", "1")
    assert session.typed("two") == [
        Ask(("community",), (user("one"), assistant("1"), user("two"))),
    ]


def test_a_comparison_asks_all_voices_and_goes_on_with_the_chosen_one() -> None:
    session = chat()
    session.typed("/compare")
    (ask,) = session.typed("one")
    assert isinstance(ask, Ask)
    assert ask.voices == VOICES
    for voice in VOICES:
        session.answered(voice, f"of {voice}")
    assert session.messages[-1] == assistant("of community")
    rated, said = session.typed("/better personal")
    assert rated == KeepRating(
        "personal",
        5,
        (user("one"), assistant("of personal")),
        (("base", "of base"), ("community", "of community")),
    )
    assert isinstance(said, Say)
    assert session.messages[-1] == assistant("of personal")
    assert session.voice == "personal"


def test_a_rating_keeps_the_whole_conversation_up_to_the_answer() -> None:
    session = chat(system="be brief")
    session.typed("one")
    session.answered("community", "1")
    (rated,) = session.typed("/rate 2")
    expected = (Message("system", "be brief"), user("one"), assistant("1"))
    assert rated == KeepRating("community", 2, expected)


def test_lines_go_on_after_a_backslash_and_inside_a_block() -> None:
    session = chat()
    assert session.typed("one\\") == []
    assert session.unfinished
    (ask,) = session.typed("two")
    assert isinstance(ask, Ask)
    assert ask.messages[-1] == user("one\ntwo")
    for line in ('"""', "/quit", "  kept", ""):
        assert session.typed(line) == []
    assert session.unfinished
    (ask,) = session.typed('"""')
    assert isinstance(ask, Ask)
    assert ask.messages[-1] == user("/quit\n  kept")
    assert not session.unfinished


def test_a_question_without_an_answer_is_taken_back() -> None:
    session = chat()
    session.typed("one")
    session.failed()
    assert session.messages == ()


def test_again_puts_the_last_question_once_more() -> None:
    session = chat()
    session.typed("one")
    session.answered("community", "1")
    assert session.typed("/again") == [Ask(("community",), (user("one"),))]
    session.answered("community", "2")
    assert session.messages == (user("one"), assistant("2"))


def test_a_new_conversation_keeps_the_system_message() -> None:
    session = chat()
    session.typed("/system be brief")
    session.typed("one")
    session.answered("community", "1")
    session.typed("/new")
    assert session.messages == (Message("system", "be brief"),)
    assert session.typed("/save x.jsonl") != [Save("x.jsonl", session.messages)]


@pytest.mark.parametrize("state", ["empty", "asked", "answered", "compared", "block", "open"])
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_in_every_state_says_or_does_something(state: str, command: str) -> None:
    session = chat(comparing=state == "compared")
    if state not in ("empty", "block", "open"):
        session.typed("one")
    if state in ("answered", "compared"):
        for voice in VOICES if state == "compared" else ("community",):
            session.answered(voice, "1")
    session.typed('"""' if state == "block" else "half\\" if state == "open" else "")
    effects = session.typed(command)
    if state == "block":
        assert effects == []
    elif state == "open":  # the line goes on: it is part of a question
        assert isinstance(effects[0], Ask)
    else:
        assert effects
        assert all(isinstance(e, Ask | Say | Save | KeepRating | Quit) for e in effects)


def test_one_voice_has_nothing_to_be_compared_with() -> None:
    session = ChatSession(("base",), "base")
    (said,) = session.typed("/compare")
    assert isinstance(said, Say)
    assert not session.comparing
