"""Conversations as a model's own chat template writes them, with the replies' places in the text.

Most templates do not mark which characters are the assistant's ({% generation %} is rare), so the
template is run a second time with a sentinel in a reply's place: what stands around the sentinel
stands around the reply. Every step checks itself; a template that cannot be followed, or leaves out
what was said, gives a reason and never a wrong mask.

Many templates leave out what an assistant thought before its earlier replies, as inference does.
Such a reply is learnt in a text of its own, which ends with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from nomoat.lora.data import reply_places
from nomoat.lora.data.conversations import ChatTurn
from nomoat.lora.data.messages import Chat, Form, Unclear, split_thought
from nomoat.lora.data.reply_places import Rendered
from nomoat.lora.data.template_clock import draws

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["ChatTemplate", "Rendered", "Unclear"]


@dataclass(frozen=True)
class ChatTemplate:
    """A tokenizer's chat template; `specials` matches the text of its special tokens."""

    tokenizer: PreTrainedTokenizerBase
    specials: re.Pattern[str] | None

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> ChatTemplate:
        """The chat template of `tokenizer`, which must have one."""
        added = getattr(tokenizer, "added_tokens_decoder", {}).values()
        texts = {token.content for token in added if token.special}
        texts |= set(map(str, tokenizer.all_special_tokens))
        if tokenizer.bos_token != tokenizer.eos_token:
            texts.discard(str(tokenizer.bos_token))
        longest_first = sorted(filter(None, texts), key=len, reverse=True)
        pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None
        return cls(tokenizer, pattern)

    def render(self, turns: Sequence[ChatTurn], tools: str = "") -> tuple[Rendered, ...]:
        """The conversation as texts with the places of its replies, end-of-turn tokens included.

        One text, and one more for each reply whose thought the first leaves out. Raises Unclear if
        the template refuses the turns, leaves something out, or hides where a reply is.
        """
        turns = tuple(split_thought(turn) for turn in turns)
        reason: Unclear | None = None
        for form in self._forms(turns):
            for variant in _variants(turns):
                try:
                    return self._texts(Chat(self.tokenizer, form, variant, tools))
                except Unclear as problem:
                    reason = reason or problem
        assert reason is not None
        raise reason

    def prompt(self, text: str) -> str:
        """Write the prompt that the model is given so that it answers `text`."""
        return Chat(self.tokenizer, Form(), (ChatTurn("user", text),)).text(reply_next=True)

    def self_test(self) -> str:
        """Try two exchanges; return why replies cannot be told from questions, "" if they can."""
        if draws(str(self.tokenizer.chat_template)):
            return "the chat template writes something at random"
        turns = tuple(
            ChatTurn(role, f"{word} {number}")
            for number in (11, 22)
            for role, word in (("user", "Question"), ("assistant", "Reply"))
        )
        try:
            (rendered,) = self.render(turns)
        except Unclear as reason:
            return str(reason)
        learnt = [rendered.text[start:end] for start, end in rendered.replies]
        if ["Reply 11" in learnt[0], "Reply 22" in learnt[1]] != [True, True]:
            return "the chat template changes what the assistant says"
        return "the chat template mixes questions into replies" if "Question" in str(learnt) else ""

    @cached_property
    def _thoughts_in_fields(self) -> bool:
        """The template takes thoughts apart from what was said."""
        return reply_places.writes_thoughts(Chat(self.tokenizer, Form(thoughts_in_fields=True)))

    def _forms(self, turns: Sequence[ChatTurn]) -> Iterator[Form]:
        """The ways in which templates want messages; the usual one first."""
        fields = any(turn.thought for turn in turns) and self._thoughts_in_fields
        yield Form(thoughts_in_fields=fields)
        if any(turn.calls for turn in turns):
            yield Form(fields, no_content=True)
            yield Form(fields, plain_ids=True)
            yield Form(fields, no_content=True, plain_ids=True)

    def _texts(self, chat: Chat) -> tuple[Rendered, ...]:
        whole = chat.text()
        reply_places.check_complete(chat, whole)
        places: list[tuple[int, int]] = []
        alone: list[Rendered] = []
        for index, turn in enumerate(chat.turns):
            if turn.role != "assistant" or not turn.trained:
                continue
            if index == 0:
                raise Unclear("begins with a reply")
            place = reply_places.find(chat, index, whole, self.specials)
            if place is not None:
                places.append(place)
                continue
            alone.append(reply_places.by_hand(chat.until(index), self.specials))
        main = (Rendered(whole, tuple(places)),) if places else ()
        return (*main, *alone)


def _variants(turns: tuple[ChatTurn, ...]) -> Iterator[tuple[ChatTurn, ...]]:
    """The turns, and with the system turn in the first question: some know no system role."""
    yield turns
    if len(turns) > 1 and (turns[0].role, turns[1].role) == ("system", "user"):
        yield (replace(turns[1], text=f"{turns[0].text}\n\n{turns[1].text}"), *turns[2:])
