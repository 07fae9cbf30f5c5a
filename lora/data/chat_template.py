"""Conversations as a model's own chat template writes them, with the replies' places in the text.

Most templates do not mark which characters are the assistant's ({% generation %} is rare), so the
template is run a second time with a sentinel in a reply's place: what stands around the sentinel
stands around the reply. Every step checks itself; a template that cannot be followed gives a
reason and never a wrong mask.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nomoat.lora.data.conversations import Turn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SENTINEL = "XqREPLYqX"  # letters only, so that no template trims or escapes it


@dataclass(frozen=True, slots=True)
class Rendered:
    """A conversation as one string; `replies` are the [start, end) characters to learn."""

    text: str
    replies: tuple[tuple[int, int], ...]


class Unclear(Exception):
    """The template does not show where replies are; the message is the reason."""


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

    def render(self, turns: Sequence[Turn]) -> Rendered:
        """The whole conversation and the places of its replies, end-of-turn tokens included.

        Raises Unclear if the template refuses the turns or hides where a reply is.
        """
        try:
            return self._located(turns)
        except Unclear:
            if turns[0].role != "system" or len(turns) < 2 or turns[1].role != "user":
                raise
            merged = Turn("user", f"{turns[0].text}\n\n{turns[1].text}")  # some know no system role
            return self._located((merged, *turns[2:]))

    def prompt(self, text: str) -> str:
        """What the model is given so that it answers `text`."""
        return self._apply((Turn("user", text),), reply_next=True)

    def self_test(self) -> str:
        """Why replies cannot be told from questions; empty if they can, on two exchanges."""
        turns = tuple(
            Turn(role, f"{word} {number}")
            for number in (11, 22)
            for role, word in (("user", "Question"), ("assistant", "Reply"))
        )
        try:
            rendered = self.render(turns)
        except Unclear as reason:
            return str(reason)
        learnt = [rendered.text[start:end] for start, end in rendered.replies]
        if ["Reply 11" in learnt[0], "Reply 22" in learnt[1]] != [True, True]:
            return "the chat template changes what the assistant says"
        return "the chat template mixes questions into replies" if "Question" in str(learnt) else ""

    def _apply(self, turns: Sequence[Turn], reply_next: bool = False) -> str:
        messages = [{"role": turn.role, "content": turn.text} for turn in turns]
        options: Any = {"tokenize": False, "add_generation_prompt": reply_next}
        try:
            return str(self.tokenizer.apply_chat_template(messages, **options))
        except Exception as problem:  # noqa: BLE001 - a template is a program: it raises anything
            reason = " ".join(str(problem).split())[:120]
            raise Unclear(f"the chat template refuses the conversation: {reason}") from None

    def _located(self, turns: Sequence[Turn]) -> Rendered:
        whole = self._apply(turns)
        places = (k for k, turn in enumerate(turns) if turn.role == "assistant")
        return Rendered(whole, tuple(self._reply(turns, k, whole) for k in places))

    def _reply(self, turns: Sequence[Turn], index: int, whole: str) -> tuple[int, int]:
        """[start, end) of reply `index`: its text, what its prompt leaves open, its closing."""
        if index == 0:
            raise Unclear("begins with a reply")
        marked = (*turns[:index], Turn("assistant", SENTINEL), *turns[index + 1 :])
        before, sentinel, behind = self._apply(marked).partition(SENTINEL)
        text_end = len(whole) - len(behind)
        text = whole[len(before) : text_end]
        follows = whole.startswith(before) and whole.endswith(behind)
        if not (sentinel and follows and text.strip() == turns[index].text.strip()):
            raise Unclear("the chat template does not show where the reply is")
        asked = self._apply(turns[:index], reply_next=True)
        start = len(asked) if before.startswith(asked) else len(before)
        return start, self._closed(turns[: index + 1], whole, text_end)

    def _closed(self, turns: Sequence[Turn], whole: str, text_end: int) -> int:
        """One past the end-of-turn token that closes the last of `turns`; `text_end` if none."""
        closing = self.specials.search(whole, text_end) if self.specials else None
        if closing is None or whole[text_end : closing.start()].strip():
            return text_end
        alone = self._apply(turns)  # what opens the next turn closes nothing
        belongs = closing.end() <= len(alone) or not whole.startswith(alone)
        return closing.end() if belongs else text_end
