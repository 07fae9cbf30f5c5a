"""Conversations as they are written for tokenizers without a chat template.

    <bos>{user}\\n{assistant}<eos>             {user}\\n{assistant}<eos> again for further exchanges
    <bos>{system}\\n{user}\\n{assistant}<eos>
    <bos>{tools, a JSON list}\\n{user}\\n{call, JSON}<eos>{what the tool said}\\n{assistant}<eos>
    <bos>{text}<eos>                           plain text: everything after <bos> is learnt

A call is {"name": …, "arguments": {…}}, one a line, behind the text of its turn if that has one. A
thought stands between <think> and </think>, as models that think write it. Learnt are the
assistant's tokens and the <eos> after each reply, but for replies that are there for context alone.
Where a tokenizer has no <bos>, none stands there. Control tokens written out in the data stay
ordinary text.
"""

from __future__ import annotations

from dataclasses import dataclass

from nomoat.lora.data.conversations import ChatTurn, Conversation
from nomoat.lora.data.messages import call_line, with_thought


@dataclass(frozen=True, slots=True)
class Segment:
    """A text to tokenise; `learnt` are its [start, end) characters to learn.

    ends: an <eos> follows it, learnt if any of it is.
    """

    text: str
    learnt: tuple[tuple[int, int], ...]
    ends: bool = True


def segments(conversation: Conversation) -> tuple[Segment, ...]:
    """The conversation in pieces that each end with a reply; what follows the last is left out."""
    found, asked = [], ""
    tools = f"{conversation.tools}\n" if conversation.tools else ""
    for turn in conversation.turns:
        if tools and turn.role != "system":
            asked, tools = asked + tools, ""
        if turn.role == "text":
            return (Segment(turn.text, ((0, len(turn.text)),)),)
        if turn.role != "assistant":
            asked += f"{turn.text}\n"
            continue
        text = f"{asked}{_reply(turn)}"
        found.append(Segment(text, ((len(asked), len(text)),) if turn.trained else ()))
        asked = ""
    return tuple(found)


def _reply(turn: ChatTurn) -> str:
    lines = [call_line(call) for call in turn.calls]
    said = with_thought(turn)
    return "\n".join([said, *lines] if said else lines)
