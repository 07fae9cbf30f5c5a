"""Tools and their calls, in the ways in which people write them → one way.

Calls: OpenAI's `tool_calls` and `function_call`, flat ones, ShareGPT's turns of the role
function_call, Anthropic's `tool_use`. Arguments: a JSON object, or the text of one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from nomoat.lora.data.conversations import ToolCall

ARGUMENTS = ("arguments", "parameters", "args", "input")
CALL_TYPES = (None, "function", "tool_use", "function_call", "tool_call")


class UnusableRow(Exception):
    """This row is well formed but cannot be trained on; the message is the reason."""


def calls_in(value: Any) -> tuple[ToolCall, ...]:
    """The calls that a turn's `tool_calls` or `function_call` holds; UnusableRow if unclear."""
    value = _parsed(value, "a tool call that is not JSON")
    if value in (None, [], {}):
        return ()
    items = value if isinstance(value, list) else [value]
    return tuple(_call(_parsed(item, "a tool call that is not JSON")) for item in items)


def calls_in_text(text: str) -> tuple[ToolCall, ...]:
    """The calls in the text of a turn that is nothing but calls; none if it is no JSON."""
    try:
        return calls_in(text)
    except UnusableRow:
        return ()


def _call(item: Any) -> ToolCall:
    if not isinstance(item, Mapping) or item.get("type") not in CALL_TYPES:
        raise UnusableRow("has a tool call that is not understood")
    inner = item.get("function")
    inner = inner if isinstance(inner, Mapping) else item
    name = inner.get("name")
    if not isinstance(name, str) or not name.strip():
        raise UnusableRow("has a tool call without a name")
    given = next((inner[key] for key in ARGUMENTS if inner.get(key) is not None), None)
    arguments = _parsed(given, "a tool call whose arguments are not JSON")
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, Mapping):
        raise UnusableRow("has a tool call whose arguments are no object")
    named = item.get("id") or item.get("call_id") or item.get("tool_call_id") or ""
    return ToolCall(name, json_text(arguments), str(named))


def tools_in(value: Any) -> str:
    """The tools offered in a conversation as a JSON list, or ""; UnusableRow if unclear.

    They come as a list, the text of one, or the legacy `functions`; each is wrapped as
    {"type": "function", "function": …}.
    """
    value = _parsed(value, "tools that are not JSON")
    if value in (None, [], {}):
        return ""
    items = value if isinstance(value, list) else [value]
    return json_text([_tool(_parsed(item, "tools that are not JSON")) for item in items])


def _tool(item: Any) -> Any:
    if isinstance(item, Mapping):
        inner = item.get("function")
        if isinstance(inner, Mapping) and isinstance(inner.get("name"), str):
            return {"type": "function", **item}
        if isinstance(item.get("name"), str):
            schema = {"parameters": item["input_schema"]} if "input_schema" in item else {}
            kept = {k: v for k, v in item.items() if k not in ("type", "input_schema")}
            return {"type": "function", "function": {**kept, **schema}}
    raise UnusableRow("has tools that are not understood")


def json_text(value: Any) -> str:
    """A JSON value as text, in Unicode; UnusableRow if it holds half of a surrogate pair."""
    text = json.dumps(value, ensure_ascii=False)
    if has_half_a_pair(text):
        raise UnusableRow(HALF_A_PAIR)
    return text


HALF = re.compile("[\ud800-\udfff]")
HALF_A_PAIR = "has half of a surrogate pair, which is not Unicode text"


def has_half_a_pair(text: str) -> bool:
    """Tell text that no UTF-8 file can hold."""
    return not text.isascii() and HALF.search(text) is not None


def _parsed(value: Any, what: str) -> Any:
    """A value, or what its text is as JSON; None for empty text."""
    if not isinstance(value, str):
        return value
    if not value.strip():
        return None
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise UnusableRow(f"has {what}") from None
