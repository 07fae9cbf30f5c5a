"""A conversation in the form that chat templates take: messages, and how each wants them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nomoat.lora.data.conversations import ChatTurn, ToolCall
from nomoat.lora.data.template_clock import with_fixed_clock

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

THINKING = re.compile(r"\s*<think>(.*?)</think>(.*)", re.DOTALL)


class Unclear(Exception):
    """The template does not show where replies are; the message is the reason."""


@dataclass(frozen=True, slots=True)
class Form:
    """The form a template wants of what has several.

    thoughts_in_fields: as reasoning_content, else in the content between <think> and </think>.
    no_content: a turn that only calls has none, not an empty one. plain_ids: of nine digits.
    """

    thoughts_in_fields: bool = False
    no_content: bool = False
    plain_ids: bool = False


@dataclass(frozen=True)
class Chat:
    """A conversation on its way through a template, and how the template wants it."""

    tokenizer: PreTrainedTokenizerBase
    form: Form
    turns: tuple[ChatTurn, ...] = ()
    tools: str = ""

    def text(self, reply_next: bool = False) -> str:
        """Run the template; Unclear if it refuses."""
        messages = [self._message(turn) for turn in self.turns]
        options: Any = {"tokenize": False, "add_generation_prompt": reply_next}
        if self.tools:
            options["tools"] = json.loads(self.tools)
        try:
            template = self.tokenizer.get_chat_template(tools=options.get("tools"))
            options["chat_template"] = with_fixed_clock(template)
            return str(self.tokenizer.apply_chat_template(messages, **options))
        except Exception as problem:  # noqa: BLE001 - a template is a program: it raises anything
            reason = " ".join(str(problem).split())[:120]
            raise Unclear(f"the chat template refuses the conversation: {reason}") from None

    def until(self, index: int) -> Chat:
        """The conversation up to turn `index`, which is its last."""
        return replace(self, turns=self.turns[: index + 1])

    def with_turn(self, index: int, turn: ChatTurn) -> Chat:
        """The conversation with another turn in place of turn `index`."""
        return replace(self, turns=(*self.turns[:index], turn, *self.turns[index + 1 :]))

    def _message(self, turn: ChatTurn) -> dict[str, Any]:
        message: dict[str, Any] = {"role": turn.role, "content": turn.text}
        if turn.thought and self.form.thoughts_in_fields:
            message |= {"reasoning_content": turn.thought, "thinking": turn.thought}
        elif turn.thought:
            message["content"] = with_thought(turn)
        if turn.calls:
            message["tool_calls"] = [self._call(call) for call in turn.calls]
            if self.form.no_content and not turn.text:
                del message["content"]
        if turn.role == "tool":
            message |= {"name": turn.name} if turn.name else {}
            message |= {"tool_call_id": self._id(turn.call_id)} if turn.call_id else {}
        return message

    def _call(self, call: ToolCall) -> dict[str, Any]:
        function = {"name": call.name, "arguments": json.loads(call.arguments)}
        named = {"id": self._id(call.id)} if call.id or self.form.plain_ids else {}
        return {**named, "type": "function", "function": function}

    def _id(self, text: str) -> str:
        if not self.form.plain_ids:
            return text
        known = dict.fromkeys(call.id for turn in self.turns for call in turn.calls)
        return f"{list(known).index(text) if text in known else 0:09d}"


def split_thought(turn: ChatTurn) -> ChatTurn:
    """A reply that begins with <think>…</think> with its thought apart."""
    found = THINKING.fullmatch(turn.text) if turn.role == "assistant" and not turn.thought else None
    if found is None or not found.group(1).strip():
        return turn
    return replace(turn, thought=found.group(1).strip("\n"), text=found.group(2).lstrip("\n"))


def with_thought(turn: ChatTurn) -> str:
    """A reply's thought and text as one, as models that think write them."""
    if not turn.thought:
        return turn.text
    return f"<think>\n{turn.thought}\n</think>\n\n{turn.text}"


def call_line(call: ToolCall) -> str:
    """A call as one line of JSON."""
    return json.dumps(
        {"name": call.name, "arguments": json.loads(call.arguments)}, ensure_ascii=False
    )
