"""Conversations → token ids and which of them are learnt.

A tokenizer's own chat template writes them if it can be followed (chat_template.py), else the plain
one does (plain_template.py).
"""

from __future__ import annotations

import typing
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nomoat.lora.data import plain_template
from nomoat.lora.data.chat_template import ChatTemplate, Unclear
from nomoat.lora.data.conversations import Conversation, Dropped, Tally
from nomoat.lora.data.plain_template import Segment

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Spans: TypeAlias = Sequence[tuple[int, int]]  # [start, end) characters of each token
BATCH = 256  # conversations tokenised at a time
TOO_LONG = "no trained token left after cutting to {}"
NOTHING = "no token to learn from"


@dataclass(frozen=True, eq=False, slots=True)
class Example:
    """One row of tokens. `trained[i]`: the loss counts the prediction of token i."""

    input_ids: NDArray[np.int32]  # (n,)
    trained: NDArray[np.bool_]  # (n,); never the first, which nothing predicts


@dataclass(frozen=True, slots=True)
class Encoded:
    """A data set as tokens: its examples, how many conversations were cut, what was dropped."""

    examples: tuple[Example, ...]
    truncated: int
    dropped: tuple[Dropped, ...]


@dataclass(frozen=True, slots=True)
class Tokens:
    """A text before it is cut: ids, mask, and the text each token stands for.

    ends: the last learnt token is one that ends a reply.
    """

    ids: list[int]
    trained: list[bool]
    spans: Spans
    source: str
    ends: bool

    @property
    def all_learnt(self) -> bool:
        """Plain text: cutting it loses nothing, its pieces follow one another."""
        return all(self.trained[1:])

    @property
    def needed(self) -> int:
        """Tokens up to the last one that is learnt; 0 if none is."""
        return max((n for n, learnt in enumerate(self.trained, 1) if learnt and n > 1), default=0)

    @property
    def least(self) -> int:
        """Tokens up to the first one that is learnt; 0 if none is."""
        return next((n for n, learnt in enumerate(self.trained, 1) if learnt and n > 1), 0)


@dataclass(frozen=True)
class Encoder:
    """Turns conversations into examples of at most `seq_len` tokens.

    `template` says in words which template is used, and why if the tokenizer's own is not.
    """

    tokenizer: PreTrainedTokenizerBase
    seq_len: int
    chat: ChatTemplate | None
    template: str

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, seq_len: int) -> Encoder:
        """An encoder with the tokenizer's chat template if it has one that passes its self-test."""
        if not getattr(tokenizer, "chat_template", None):
            return cls(tokenizer, seq_len, None, "plain")
        chat = ChatTemplate.of(tokenizer)
        if problem := chat.self_test():
            return cls(tokenizer, seq_len, None, f"plain, because {problem}")
        return cls(tokenizer, seq_len, chat, "the tokenizer's chat template")

    def encode(self, conversation: Conversation) -> Example | str:
        """The conversation's (first) example, or why it has none."""
        pieces = self._pieces(next(self.tokens((conversation,))))
        return pieces if isinstance(pieces, str) else pieces[0]

    def encode_all(self, conversations: Iterable[Conversation]) -> Encoded:
        """Every conversation's examples.

        Plain text longer than seq_len becomes several examples, each opening with the last token
        of the one before, so that every token is learnt once; a conversation is cut at seq_len.
        """
        examples: list[Example] = []
        tally, truncated = Tally(), 0
        source = iter(conversations)
        while batch := list(islice(source, BATCH)):
            for conversation, texts in zip(batch, self.tokens(batch), strict=True):
                pieces = self._pieces(texts)
                if isinstance(texts, str) or isinstance(pieces, str):
                    tally.add(str(pieces), conversation.origin)
                    continue
                examples += pieces
                truncated += any(
                    text.needed > self.seq_len and not text.all_learnt for text in texts
                )
        return Encoded(tuple(examples), truncated, tally.dropped())

    def prompt_ids(self, prompt: str, continue_text: bool = False) -> list[int]:
        """The ids after which the model answers `prompt` (or goes on writing it)."""
        if self.chat is not None and not continue_text:
            text = self.chat.prompt(prompt)
            return list(self._tokenize([text], control_tokens=True)["input_ids"][0])
        text = prompt if continue_text else prompt + "\n"
        ids = self._tokenize([text], control_tokens=False)["input_ids"][0]
        return [*self._bos(), *ids]

    def show(self, conversation: Conversation) -> tuple[tuple[str, bool], ...]:
        """(text, trained) of each token of the conversation's first example."""
        texts = next(self.tokens((conversation,)))
        if isinstance(texts, str):
            return ()
        tokens = texts[0]
        specials = set(self.tokenizer.all_special_ids)
        shown, told = [], 0
        rows = zip(tokens.ids, tokens.trained, tokens.spans, strict=True)
        for token, trained, (_, end) in islice(rows, self.seq_len):
            text = tokens.source[told:end]
            if token in specials and not text:
                text = str(self.tokenizer.convert_ids_to_tokens(token))
            told = max(told, end)
            shown.append((text, trained))
        return tuple(shown)

    def tokens(self, conversations: Sequence[Conversation]) -> Iterator[list[Tokens] | str]:
        """Each conversation's texts as tokens, uncut, or why it has none.

        One text, or more where the chat template writes a reply apart (chat_template.py).
        """
        plans = [self._plan(conversation) for conversation in conversations]
        texts: dict[bool, list[str]] = {True: [], False: []}
        for plan in plans:
            if not isinstance(plan, str):
                texts[plan.templated] += [segment.text for segment in plan.segments]
        encoded = {kind: self._rows(texts[kind], kind) for kind in texts}
        for plan in plans:
            if isinstance(plan, str):
                yield plan
            elif plan.templated:
                yield [
                    self._chat_tokens(segment, *next(encoded[True])) for segment in plan.segments
                ]
            else:
                rows = [next(encoded[False]) for _ in plan.segments]
                yield [self._plain_tokens(plan.segments, rows)]

    def _plan(self, conversation: Conversation) -> _Plan | str:
        if self.chat is None or conversation.turns[0].role == "text":
            return _Plan(plain_template.segments(conversation), templated=False)
        try:
            rendered = self.chat.render(conversation.turns, conversation.tools)
        except Unclear as reason:
            return str(reason)
        return _Plan(tuple(Segment(r.text, r.replies) for r in rendered), templated=True)

    def _rows(self, texts: list[str], control_tokens: bool) -> Iterator[tuple[list[int], Spans]]:
        if not texts:
            return iter(())
        batch = self._tokenize(texts, control_tokens)
        return zip(batch["input_ids"], batch["offset_mapping"], strict=True)

    def _tokenize(self, texts: list[str], control_tokens: bool) -> Any:
        """Token ids and character spans of each text, no <bos> or <eos> added.

        Without `control_tokens`, "</s>" in the data is five characters and ends nothing.
        """
        return self.tokenizer(
            texts,
            add_special_tokens=False,
            split_special_tokens=not control_tokens,
            return_attention_mask=False,
            return_token_type_ids=False,
            return_offsets_mapping=True,
            verbose=False,
        )

    def _plain_tokens(
        self, segments: Sequence[Segment], rows: Sequence[tuple[list[int], Spans]]
    ) -> Tokens:
        ids, start = self._bos(), 0
        spans: list[tuple[int, int]] = [(0, 0)] * len(ids)
        trained = [False] * len(ids)
        eos = self.tokenizer.eos_token_id
        for segment, (row, offsets) in zip(segments, rows, strict=True):
            ids += row
            trained += _mask(offsets, segment.learnt)
            spans += [(start + a, start + b) for a, b in offsets]
            start += len(segment.text)
            if eos is not None:
                ids.append(_token(eos))
                trained.append(bool(segment.learnt))
                spans.append((start, start))
        return Tokens(ids, trained, spans, "".join(s.text for s in segments), eos is not None)

    def _chat_tokens(self, segment: Segment, ids: list[int], spans: Spans) -> Tokens:
        trained = _mask(spans, segment.learnt)
        specials = set(self.tokenizer.all_special_ids) | self._added_specials()
        last = max((place for place, flag in enumerate(trained) if flag), default=-1)
        eos = self.tokenizer.eos_token_id
        ends = last >= 0 and ids[last] in specials
        if last >= 0 and not ends and eos is not None:
            end = spans[last][1]  # a template without an end of turn: stopping must be learnt
            ids = [*ids[: last + 1], _token(eos)]
            trained = [*trained[: last + 1], True]
            spans = [*spans[: last + 1], (end, end)]
            ends = True
        return Tokens(ids, trained, spans, segment.text, ends)

    def _added_specials(self) -> set[int]:
        added = getattr(self.tokenizer, "added_tokens_decoder", {})
        return {number for number, token in added.items() if token.special}

    def _bos(self) -> list[int]:
        bos = self.tokenizer.bos_token_id
        return [] if bos is None else [_token(bos)]

    def _pieces(self, texts: list[Tokens] | str) -> list[Example] | str:
        if isinstance(texts, str):
            return texts
        pieces = [piece for tokens in texts for piece in _cut(tokens, self.seq_len)]
        if pieces:
            return pieces
        learns = any(any(tokens.trained[1:]) for tokens in texts)
        return TOO_LONG.format(self.seq_len) if learns else NOTHING


@dataclass(frozen=True, slots=True)
class _Plan:
    """Texts to tokenise: the chat template's, each one example, or segments of one."""

    segments: tuple[Segment, ...]
    templated: bool


def _cut(tokens: Tokens, seq_len: int) -> list[Example]:
    """A text's examples that have anything to learn."""
    ids = np.asarray(tokens.ids, np.int32)
    trained = np.asarray(tokens.trained, np.bool_)
    trained[:1] = False
    last = len(ids) - 1 if trained[1:].all() else 1
    starts = range(0, max(last, 1), seq_len - 1)
    cuts = [slice(start, start + seq_len) for start in starts]
    pieces = [Example(ids[cut], _first_untrained(trained[cut])) for cut in cuts]
    return [piece for piece in pieces if piece.trained.any()]


def _mask(spans: Spans, learnt: Sequence[tuple[int, int]]) -> list[bool]:
    """Mark the tokens that hold a character to learn (half of a merged token is enough)."""
    if not spans:
        return []
    first, behind = np.asarray(spans, np.int64).T
    flags = np.zeros(len(spans), np.bool_)
    for start, end in learnt:
        flags |= (first < end) & (behind > start) & (behind > first)
    return typing.cast(list[bool], flags.tolist())


def _first_untrained(trained: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.concatenate(([False], trained[1:]))


def _token(value: Any) -> int:
    """A special token's id (a few tokenizers keep a list of them: the first)."""
    return int(value[0] if isinstance(value, list) else value)
