"""Places of replies in what a chat template wrote: found with sentinels, and checked.

A sentinel is a word that no template trims or escapes. What the template writes around it when it
stands in a reply's place is what it writes around the reply.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from nomoat.lora.data.conversations import ChatTurn
from nomoat.lora.data.messages import Chat, Unclear, with_thought

REPLY = "XqREPLYqX"
THOUGHT = "XqTHOUGHTqX"
LOST = "the chat template leaves out {}"
TELLING = 12  # characters that stand in a text by chance no more
HIDDEN = "the chat template does not show where the reply is"


@dataclass(frozen=True, slots=True)
class Rendered:
    """A conversation as one string; `replies` are the [start, end) characters to learn."""

    text: str
    replies: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class _Around:
    """The template's words around a reply: before its thought (or text), between, behind.

    Without a thought, `between` is empty.
    """

    before: str
    between: str
    behind: str


def writes_thoughts(chat: Chat) -> bool:
    """Tell a template that writes a thought which is told apart from its reply."""
    turns = ChatTurn("user", "Question"), ChatTurn("assistant", REPLY, THOUGHT)
    try:
        return THOUGHT in replace(chat, turns=turns).text()
    except Unclear:
        return False


def check_complete(chat: Chat, whole: str) -> None:
    """Raise Unclear if the template left out tools, a call, or what somebody other said."""
    if chat.tools and replace(chat, tools="").text() == whole:
        raise Unclear(LOST.format("the tools"))
    if any(turn.calls for turn in chat.turns):
        marked = replace(chat, turns=tuple(_with_marked_calls(turn) for turn in chat.turns)).text()
        calls = sum(len(turn.calls) for turn in chat.turns)
        if marked.count(REPLY) < calls:
            raise Unclear(LOST.format("calls of tools"))
    for index, turn in enumerate(chat.turns):
        text = turn.text.strip()
        if turn.role == "assistant" or turn.silent or (len(text) > TELLING and text in whole):
            continue  # nearly all templates write text as it is
        if REPLY not in chat.with_turn(index, replace(turn, text=REPLY)).text():
            raise Unclear(LOST.format(f"a turn of the role {turn.role!r}"))


def _with_marked_calls(turn: ChatTurn) -> ChatTurn:
    marked = f'{{"{REPLY}": 1}}'
    return replace(turn, calls=tuple(replace(call, arguments=marked) for call in turn.calls))


def find(
    chat: Chat, index: int, whole: str, specials: re.Pattern[str] | None
) -> tuple[int, int] | None:
    """[start, end) of reply `index`: its text, what its prompt leaves open, its closing.

    None if the template leaves out what was thought before it; Unclear if it cannot be found.
    """
    turn = chat.turns[index]
    if turn.calls:
        return _find_calls(chat, index, whole, specials)
    around = _around(chat, index)
    if around is None:
        return None
    text_end = len(whole) - len(around.behind)
    text = whole[len(around.before) : text_end]
    follows = whole.startswith(around.before) and whole.endswith(around.behind)
    said = f"{turn.thought}{around.between}{turn.text}"
    if not (follows and _squeezed(text) == _squeezed(said)):
        raise Unclear(HIDDEN)
    return _start(chat, index, around.before), _closed(chat, index, whole, text_end, specials)


def _around(chat: Chat, index: int) -> _Around | None:
    """None if a thought is left out; Unclear if the reply is."""
    turn = chat.turns[index]
    thought = THOUGHT if turn.thought else ""
    marked = chat.with_turn(index, replace(turn, text=REPLY, thought=thought, calls=())).text()
    if marked.count(REPLY) != 1:
        raise Unclear(HIDDEN)
    if thought and marked.count(THOUGHT) != 1:
        return None
    before, _, behind = marked.partition(REPLY)
    if not thought:
        return _Around(before, "", behind)
    before, _, between = before.partition(THOUGHT)
    return _Around(before, between, behind)


def _squeezed(text: str) -> str:
    """Text without blanks, of which templates trim and add some."""
    return "".join(text.split())


def _start(chat: Chat, index: int, before: str) -> int:
    """The first character that a model must write itself after its prompt."""
    asked = replace(chat, turns=chat.turns[:index]).text(reply_next=True)
    return len(asked) if before.startswith(asked) else len(before)


def _closed(
    chat: Chat, index: int, whole: str, text_end: int, specials: re.Pattern[str] | None
) -> int:
    """One past the end-of-turn token that closes turn `index`; `text_end` if none does."""
    closing = specials.search(whole, text_end) if specials else None
    if closing is None or whole[text_end : closing.start()].strip():
        return text_end
    alone = chat.until(index).text()  # what opens the next turn closes nothing
    belongs = closing.end() <= len(alone) or not whole.startswith(alone)
    return closing.end() if belongs else text_end


def _find_calls(
    chat: Chat, index: int, whole: str, specials: re.Pattern[str] | None
) -> tuple[int, int] | None:
    """The place of a reply that calls tools: found like a text, or from the prompts around it."""
    turn = chat.turns[index]
    for start, end in _candidates(chat, index, whole, specials):
        said = whole[start:end]
        parts = (turn.text.strip(), *(call.name for call in turn.calls))
        if all(part in said for part in parts):
            return (start, end) if _squeezed(turn.thought) in _squeezed(said) else None
    raise Unclear(HIDDEN)


def _candidates(
    chat: Chat, index: int, whole: str, specials: re.Pattern[str] | None
) -> Iterator[tuple[int, int]]:
    around = _around(chat, index)
    if around and whole.startswith(around.before) and whole.endswith(around.behind):
        text_end = len(whole) - len(around.behind)
        if text_end > len(around.before):
            end = _closed(chat, index, whole, text_end, specials)
            yield _start(chat, index, around.before), end
    asked = replace(chat, turns=chat.turns[:index]).text(reply_next=True)
    answered = chat.until(index).text()
    if answered.startswith(asked) and whole.startswith(answered):
        yield len(asked), len(answered.rstrip())


def by_hand(chat: Chat, specials: re.Pattern[str] | None) -> Rendered:
    """A conversation whose last turn is a reply that the template would write without its thought.

    It is written as the model has to write it: after its prompt, thought and all, then closed as
    the template closes a reply.
    """
    index = len(chat.turns) - 1
    last = chat.turns[index]
    whole = chat.text()
    if (place := find(chat, index, whole, specials)) is not None:
        return Rendered(whole, (place,))  # only earlier thoughts are left out
    around = None if last.calls else _around(chat.with_turn(index, _thoughtless(last)), index)
    asked = replace(chat, turns=chat.turns[:index]).text(reply_next=True)
    if around is None or not (asked.startswith(around.before) or around.before.startswith(asked)):
        raise Unclear(LOST.format("what was thought before a reply"))
    opened = asked[len(around.before) :].strip()
    if opened not in ("", "<think>"):
        raise Unclear(LOST.format("what was thought before a reply"))
    reply = with_thought(last)
    if opened:
        reply = reply.removeprefix("<think>\n" if asked.endswith("\n") else "<think>")
    closing = specials.match(around.behind.lstrip()) if specials else None
    end = closing.group() if closing else ""
    return Rendered(f"{asked}{reply}{end}", ((len(asked), len(asked) + len(reply) + len(end)),))


def _thoughtless(turn: ChatTurn) -> ChatTurn:
    return replace(turn, thought="")
