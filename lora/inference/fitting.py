"""The prompt of a conversation that has grown past the model's context."""

from __future__ import annotations

from collections.abc import Sequence

from nomoat.lora.inference.prompts import Message, Prompts
from nomoat.lora.inference.requests import ContextExceeded


def fitting(
    prompts: Prompts, messages: Sequence[Message], context: int, most_tokens: int
) -> tuple[tuple[int, ...], int]:
    """Return (prompt, number of exchanges left out): the oldest go until an answer has room.

    most_tokens: of the answer. ContextExceeded if the last question alone is too long.
    """
    head = tuple(message for message in messages[:1] if message.role == "system")
    turns, left_out = tuple(messages[len(head) :]), 0
    while True:
        prompt = prompts.chat((*head, *turns))
        if len(prompt) + min(most_tokens, context // 4) <= context:
            return prompt, left_out
        if len(turns) < 3:
            raise ContextExceeded(len(prompt), context)
        turns, left_out = turns[2:], left_out + 1
