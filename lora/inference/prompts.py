"""Conversations to prompts, as the model was trained to read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from nomoat.aggregation.errors import UsageError
from nomoat.lora.export.turns import PLAIN, template_of, write

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Role: TypeAlias = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat."""

    role: Role
    content: str


@dataclass(frozen=True)
class Prompts:
    """Prompts for one tokenizer: with its chat template, or in the plain format where it has none
    or training could not follow it (lora/data/plain_template.py).
    """

    tokenizer: PreTrainedTokenizerBase
    plain: bool

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> Prompts:
        """The prompts of a tokenizer."""
        return cls(tokenizer, template_of(tokenizer) is PLAIN)

    @cached_property
    def longest_token(self) -> int:
        """Characters of the longest token, counted generously."""
        return max(map(len, self.tokenizer.get_vocab()), default=1)

    def checked(self, ids: Sequence[int]) -> tuple[int, ...]:
        """Ids somebody else made; UsageError for one that is no token's."""
        if wrong := [token for token in ids if not 0 <= token < len(self.tokenizer)]:
            raise UsageError(f"there is no token {wrong[0]}: there are {len(self.tokenizer)}")
        return tuple(ids)

    def chat(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """The ids after which the model answers; UsageError if the template refuses the roles.

        In the plain format, control tokens written out by someone stay text, as in training.
        """
        if self.plain:
            return self._plain(messages)
        try:
            return self._templated(messages)
        except UsageError:
            if len(messages) < 2 or (messages[0].role, messages[1].role) != ("system", "user"):
                raise
        merged = Message("user", f"{messages[0].content}\n\n{messages[1].content}")
        return self._templated((merged, *messages[2:]))  # some templates know no system role

    def text(self, text: str) -> tuple[int, ...]:
        """The ids of a text to be continued, after <bos> if the tokenizer has one."""
        return (*self._special(self.tokenizer.bos_token_id), *self._ids(text))

    def _templated(self, messages: Sequence[Message]) -> tuple[int, ...]:
        said = [{"role": m.role, "content": m.content} for m in messages]
        return self._ids(write(self.tokenizer, said, answer_next=True), control_tokens=True)

    def _plain(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """<bos>, then each exchange as it was trained: question, newline, reply, <eos>."""
        ids = list(self._special(self.tokenizer.bos_token_id))
        asked = ""
        for message in messages:
            if message.role == "assistant":
                ids += self._ids(asked + message.content)
                ids += self._special(self.tokenizer.eos_token_id)
                asked = ""
            else:
                asked += message.content + "\n"
        return (*ids, *self._ids(asked))

    def _ids(self, text: str, control_tokens: bool = False) -> tuple[int, ...]:
        tokenizer: Any = self.tokenizer
        found = tokenizer(
            text, add_special_tokens=False, split_special_tokens=not control_tokens, verbose=False
        )
        return tuple(found["input_ids"])

    def _special(self, value: Any) -> tuple[int, ...]:
        if value is None:
            return ()
        return (int(value[0] if isinstance(value, list) else value),)
