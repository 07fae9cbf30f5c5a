"""One turn of a conversation, in the ways in which people write it → ChatTurn.

OpenAI's role and content (also as parts), ShareGPT's from and value, Anthropic's content blocks,
items of OpenAI's Responses API. What is malformed raises BadData, what cannot be trained on
UnusableRow: nothing that was said is left away.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from nomoat.aggregation.errors import BadData
from nomoat.lora.data.conversations import ChatTurn, ToolCall
from nomoat.lora.data.layouts.marks import turn_mark
from nomoat.lora.data.layouts.tools import (
    HALF_A_PAIR,
    UnusableRow,
    calls_in,
    calls_in_text,
    has_half_a_pair,
    json_text,
    tools_in,
)

CALL = "call"  # a turn of the assistant that is nothing but a call
ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(
        ("assistant", "gpt", "chatgpt", "bing", "bard", "model", "bot", "ai", "chatbot"),
        "assistant",
    ),
    **dict.fromkeys(
        (
            "tool", "function", "observation", "ipython", "tool_response", "tool_result",
            "tool_output", "function_response", "function_result", "function_output",
            "function_call_output",
        ),
        "tool",
    ),
    **dict.fromkeys(("function_call", "tool_call", "tool_calls"), CALL),
    "text": "text",
}  # fmt: skip
CONTENT = ("content", "value", "text")
THOUGHTS = ("reasoning_content", "reasoning", "thinking", "thought")
TEXT_PARTS = frozenset({"text", "input_text", "output_text", "refusal", None})
ATTACHED = ("images", "image", "audio", "audios", "video", "videos", "files", "attachments")


@dataclass(frozen=True, slots=True)
class TurnReader:
    """Reads a row's turns one by one: `notes` are what was found in them and is not used.

    tools: what a system turn offers.
    """

    origin: str
    column: str
    found: list[ChatTurn] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    tools: list[str] = field(default_factory=list)

    def add(self, item: Any) -> None:
        """Read one turn; one item may hold several (the results of tools before a question)."""
        if not isinstance(item, Mapping):
            raise self._bad("must be an object with role and content")
        role = self._role(item)
        for key in ATTACHED:
            if item.get(key):
                raise UnusableRow(f"has {key}, which cannot be read")
        said = _Said.of(self, item, role)
        calls = said.calls + (calls_in(item.get("tool_calls") or item.get("function_call")))
        if role == CALL:
            role, said, calls = "assistant", *self._only_calls(said, item)
        if calls and role != "assistant":
            raise UnusableRow(f"has tool calls in a turn of the role {role!r}")
        if role == "system":
            self._offer(item)
        mark = turn_mark(item, self.origin)
        if mark and role not in ("assistant", "text"):
            self.notes.append(f"a turn of the role {role!r} is marked to be trained on; none is")
        for result in said.results:
            self.found.append(self._named(result))
        if said.results and not said.text.strip():
            return
        turn = ChatTurn(role, said.text, said.thought, calls, trained=mark is not False)
        if role == "tool":
            turn = self._named(replace(turn, name=_name(item), call_id=_call_id(item)))
        if role != "assistant":
            turn = replace(turn, trained=True)
        self.found.append(turn)

    def _role(self, item: Mapping[str, Any]) -> str:
        said = [item[key] for key in ("role", "from") if item.get(key) is not None]
        if not said and item.get("type") in ROLES:  # an item of the Responses API
            said = [item["type"]]
        if not said:
            null = next((key for key in ("role", "from") if key in item), None)
            raise self._bad(f"has the {null} null" if null else "has neither a role nor a from")
        for role in said:
            if not isinstance(role, str):
                raise self._bad(f"has the role {str(role)[:20]}, which is not text")
        known = {ROLES.get(re.sub(r"[\s-]+", "_", role.strip().lower())) for role in said}
        if None in known:
            raise UnusableRow(f"has a turn of the role {said[0][:40]!r}")
        if len(known) > 1:
            raise self._bad(f"is from {said[1][:40]!r} and of the role {said[0][:40]!r}")
        return str(known.pop())

    def _only_calls(
        self, said: _Said, item: Mapping[str, Any]
    ) -> tuple[_Said, tuple[ToolCall, ...]]:
        """A turn that is a call: its text is JSON, or it has the parts of one itself."""
        if "arguments" in item and "name" in item:
            return said, calls_in(dict(item, type="function_call"))
        calls = calls_in_text(said.text) or said.calls
        return (replace(said, text="") if calls else said), calls

    def _offer(self, item: Mapping[str, Any]) -> None:
        for key in ("tools", "functions"):
            if offered := tools_in(item.get(key)):
                self.tools.append(offered)

    def _named(self, turn: ChatTurn) -> ChatTurn:
        """The result of a tool with the name of the call that it answers."""
        if turn.name or not turn.call_id:
            return turn
        called = {call.id: call.name for before in self.found for call in before.calls}
        return replace(turn, name=called.get(turn.call_id, ""))

    def _bad(self, problem: str) -> BadData:
        return BadData(f"{self.origin}: a turn in {self.column} {problem}")


@dataclass(frozen=True, slots=True)
class _Said:
    """A turn's content, read."""

    text: str
    thought: str = ""
    calls: tuple[ToolCall, ...] = ()
    results: tuple[ChatTurn, ...] = ()

    @classmethod
    def of(cls, turns: TurnReader, item: Mapping[str, Any], role: str) -> _Said:
        """Read the content; BadData if there is none and nothing in its place."""
        value = next((item[key] for key in CONTENT if item.get(key) is not None), None)
        if value is None:
            value = item.get("refusal") if item.get("output") is None else item["output"]
        thoughts = [item[key] for key in THOUGHTS if isinstance(item.get(key), str)]
        instead = (*CONTENT, "tool_calls", "function_call", "arguments", "output", "refusal")
        if not (thoughts or any(key in item for key in instead)):
            raise turns._bad("has neither content nor value")
        if isinstance(value, Mapping) and (value.get("type") is not None or "text" in value):
            value = [value]
        if isinstance(value, list | Mapping) and role == "tool" and not _is_parts(value):
            said = cls(json_text(value))  # a result that is JSON itself
        elif isinstance(value, list):
            said = cls._of_parts(turns, value)
        else:
            said = cls(text_of(value, turns.origin, turns.column))
        own = text_of(thoughts[0], turns.origin, turns.column) if thoughts else ""
        return replace(said, thought=own or said.thought)

    @classmethod
    def _of_parts(cls, turns: TurnReader, parts: list[Any]) -> _Said:
        texts, thoughts = list[str](), list[str]()
        calls, results = list[ToolCall](), list[ChatTurn]()
        for part in parts:
            kind = part.get("type") if isinstance(part, Mapping) else "no object"
            if kind in TEXT_PARTS and (kind is not None or "text" in part):
                value = part.get("text", part.get("refusal"))
                texts.append(text_of(value, turns.origin, turns.column))
            elif kind == "thinking":
                thoughts.append(text_of(part.get("thinking"), turns.origin, turns.column))
            elif kind == "tool_use":
                calls += calls_in(part)
            elif kind == "tool_result":
                results.append(cls._result(turns, part))
            else:
                raise UnusableRow("has parts that are not text")
        return cls("".join(texts), "\n".join(thoughts), tuple(calls), tuple(results))

    @classmethod
    def _result(cls, turns: TurnReader, part: Mapping[str, Any]) -> ChatTurn:
        content = part.get("content")
        inner = content if isinstance(content, list) else [{"type": "text", "text": content}]
        text = cls._of_parts(turns, inner).text
        return ChatTurn("tool", text, call_id=str(part.get("tool_use_id") or ""))


def is_missing(value: Any) -> bool:
    """Tell a cell without a value; NaN is what pandas writes for one."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def text_of(value: Any, origin: str, column: str) -> str:
    """A value as text: none is "", numbers are written out; BadData for structures."""
    if is_missing(value):
        return ""
    if isinstance(value, int | float):
        return str(value)
    if not isinstance(value, str):
        raise BadData(f"{origin}: column {column} is a {type(value).__name__}, not text")
    if has_half_a_pair(value):
        raise UnusableRow(HALF_A_PAIR)
    return value


def _is_parts(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(part, Mapping) and part.get("type") is not None for part in value
    )


def _name(item: Mapping[str, Any]) -> str:
    name = item.get("name") or item.get("tool_name")
    return name if isinstance(name, str) else ""


def _call_id(item: Mapping[str, Any]) -> str:
    return str(item.get("tool_call_id") or item.get("call_id") or item.get("id") or "")
