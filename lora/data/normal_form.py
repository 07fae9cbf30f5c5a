"""The one form in which rows are kept on disk: JSON Lines of `messages`, with their fields.

A row of plain turns is {"messages": [{"role", "content"}, …], field: text, …}. One that holds more
(tool calls, thoughts, turns that are not trained on, a field that a layout would take for its own)
is {"nomoat": 2, "messages": …, "tools": […], "fields": {…}}, which is read back to the letter.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from nomoat.aggregation.errors import BadData
from nomoat.lora.data.conversations import ChatTurn, Conversation, ToolCall
from nomoat.lora.data.files import streams
from nomoat.lora.data.layouts.columns import CHAT
from nomoat.lora.data.layouts.marks import MARKS
from nomoat.storage.atomic import replacing

VERSION_KEY, VERSION = "nomoat", 2
RESERVED = frozenset({VERSION_KEY, "messages", *CHAT, *MARKS})


def write_jsonl(conversations: Iterable[Conversation], path: Path, mode: int = 0o644) -> None:
    """Write conversations in the normal form, one per line; what `read` reads back is equal."""
    with replacing(path, mode) as file:
        for line in _lines(conversations):
            file.write(line)


def _lines(conversations: Iterable[Conversation]) -> Iterator[bytes]:
    for conversation in conversations:
        row = _plain(conversation) if _is_plain(conversation) else _whole(conversation)
        line = json.dumps(row, ensure_ascii=False).encode() + b"\n"
        if len(line) > streams.MAX_LINE_BYTES:
            limit = streams.MAX_LINE_BYTES >> 20
            raise BadData(f"{conversation.origin}: the row takes more than {limit} MiB as JSON")
        yield line


def _is_plain(conversation: Conversation) -> bool:
    return (
        not conversation.tools
        and not conversation.fields.keys() & RESERVED
        and all(
            turn == ChatTurn(turn.role, turn.text) and not (turn.silent and turn.role != "user")
            for turn in conversation.turns
        )
        and any(turn.learnt for turn in conversation.turns)
    )


def _plain(conversation: Conversation) -> dict[str, Any]:
    messages = [{"role": turn.role, "content": turn.text} for turn in conversation.turns]
    return {"messages": messages, **conversation.fields}


def _whole(conversation: Conversation) -> dict[str, Any]:
    tools = {"tools": json.loads(conversation.tools)} if conversation.tools else {}
    messages = [_message(turn) for turn in conversation.turns]
    fields = dict(conversation.fields)
    return {VERSION_KEY: VERSION, "messages": messages, **tools, "fields": fields}


def _message(turn: ChatTurn) -> dict[str, Any]:
    calls = [{"name": c.name, "arguments": c.arguments, "id": c.id} for c in turn.calls]
    further = {
        "reasoning_content": turn.thought,
        "tool_calls": calls,
        "name": turn.name,
        "tool_call_id": turn.call_id,
    }
    said = {"role": turn.role, "content": turn.text, **{k: v for k, v in further.items() if v}}
    return said if turn.trained else {**said, "train": False}


def is_normal(values: Mapping[str, Any]) -> bool:
    """Tell a row that `write_jsonl` wrote in the form that is read to the letter."""
    return values.get(VERSION_KEY) == VERSION and values.keys() >= {"messages", "fields"}


def conversation(values: Mapping[str, Any], origin: str) -> Conversation:
    """The conversation of such a row; BadData if somebody has changed it."""
    try:
        tools = values.get("tools")
        return Conversation(
            tuple(_turn(message) for message in values["messages"]),
            {str(name): str(value) for name, value in values["fields"].items()},
            origin,
            json.dumps(tools, ensure_ascii=False) if tools else "",
        )
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        raise BadData(f"{origin}: not a row in nomoat's own form: {problem}") from None


def _turn(message: Mapping[str, Any]) -> ChatTurn:
    calls = message.get("tool_calls", ())
    return ChatTurn(
        str(message["role"]),
        str(message["content"]),
        str(message.get("reasoning_content", "")),
        tuple(ToolCall(call["name"], call["arguments"], call["id"]) for call in calls),
        str(message.get("name", "")),
        str(message.get("tool_call_id", "")),
        bool(message.get("train", True)),
    )
