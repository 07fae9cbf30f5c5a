"""Conversations → token ids and which of them are learnt; what a preview shows of it.

The plain template, for tokenizers without a chat template:
    <bos>{user}\\n{assistant}<eos>             {user}\\n{assistant}<eos> again for further exchanges
    <bos>{system}\\n{user}\\n{assistant}<eos>
    <bos>{text}<eos>                           plain text: everything after <bos> is learnt
Learnt are the assistant's tokens and the <eos> after each reply; where a tokenizer has no <bos>,
none stands there. Control tokens written out in the data stay ordinary text.
"""

from __future__ import annotations

import typing
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nomoat.lora.data.chat_template import ChatTemplate, Unclear
from nomoat.lora.data.conversations import Conversation, Dataset, Dropped, Tally, Turn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Spans: TypeAlias = Sequence[tuple[int, int]]  # [start, end) characters of each token
BATCH = 256  # conversations tokenised at a time


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
class Preview:
    """What training will see: the first example token by token, and counts over all."""

    layout: str
    template: str
    first: tuple[tuple[str, bool], ...]  # (text of the token, trained)
    first_origin: str
    rows: int
    examples: int
    tokens: int
    trained_tokens: int
    truncated: int
    dropped: tuple[Dropped, ...]


@dataclass(frozen=True, slots=True)
class _Tokens:
    """A conversation before it is cut: ids, mask, and the text each token stands for."""

    ids: list[int]
    trained: list[bool]
    spans: Spans
    source: str


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
        pieces = self._pieces(next(self._tokens((conversation,))))
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
            for conversation, tokens in zip(batch, self._tokens(batch), strict=True):
                pieces = self._pieces(tokens)
                if isinstance(pieces, str) or isinstance(tokens, str):
                    tally.add(str(pieces), conversation.origin)
                    continue
                examples += pieces
                kept = len(pieces[0].input_ids)
                truncated += len(pieces) == 1 and kept < len(tokens.ids)
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
        tokens = next(self._tokens((conversation,)))
        if isinstance(tokens, str):
            return ()
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

    def _tokens(self, conversations: Sequence[Conversation]) -> Iterator[_Tokens | str]:
        """Each conversation's tokens, uncut, or why it has none."""
        plans = [self._plan(conversation.turns) for conversation in conversations]
        texts: dict[bool, list[str]] = {True: [], False: []}
        for plan in plans:
            if not isinstance(plan, str):
                texts[plan.templated] += plan.segments
        encoded = {kind: self._rows(texts[kind], kind) for kind in texts}
        for plan in plans:
            if isinstance(plan, str):
                yield plan
            elif plan.templated:
                yield self._chat_tokens(plan, *next(encoded[True]))
            else:
                yield self._plain_tokens(plan, [next(encoded[False]) for _ in plan.segments])

    def _plan(self, turns: Sequence[Turn]) -> _Plan | str:
        if turns[0].role == "text":
            text = turns[0].text
            return _Plan((text,), (((0, len(text)),),), templated=False)
        if self.chat is None:
            return _plain_plan(turns)
        try:
            rendered = self.chat.render(turns)
        except Unclear as reason:
            return str(reason)
        return _Plan((rendered.text,), (rendered.replies,), templated=True)

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

    def _plain_tokens(self, plan: _Plan, rows: Sequence[tuple[list[int], Spans]]) -> _Tokens:
        ids, start = self._bos(), 0
        spans: list[tuple[int, int]] = [(0, 0)] * len(ids)
        trained = [False] * len(ids)
        for segment, learnt, (row, offsets) in zip(plan.segments, plan.learnt, rows, strict=True):
            ids += row
            trained += _mask(offsets, learnt)
            spans += [(start + a, start + b) for a, b in offsets]
            start += len(segment)
            if learnt and self.tokenizer.eos_token_id is not None:
                ids.append(_token(self.tokenizer.eos_token_id))
                trained.append(True)
                spans.append((start, start))
        return _Tokens(ids, trained, spans, "".join(plan.segments))

    def _chat_tokens(self, plan: _Plan, ids: list[int], spans: Spans) -> _Tokens:
        trained = _mask(spans, plan.learnt[0])
        specials = set(self.tokenizer.all_special_ids) | self._added_specials()
        last = max((place for place, flag in enumerate(trained) if flag), default=-1)
        eos = self.tokenizer.eos_token_id
        if last >= 0 and ids[last] not in specials and eos is not None:
            end = spans[last][1]  # a template without an end of turn: stopping must be learnt
            ids = [*ids[: last + 1], _token(eos)]
            trained = [*trained[: last + 1], True]
            spans = [*spans[: last + 1], (end, end)]
        return _Tokens(ids, trained, spans, plan.segments[0])

    def _added_specials(self) -> set[int]:
        added = getattr(self.tokenizer, "added_tokens_decoder", {})
        return {number for number, token in added.items() if token.special}

    def _bos(self) -> list[int]:
        bos = self.tokenizer.bos_token_id
        return [] if bos is None else [_token(bos)]

    def _pieces(self, tokens: _Tokens | str) -> list[Example] | str:
        if isinstance(tokens, str):
            return tokens
        ids = np.asarray(tokens.ids, np.int32)
        trained = np.asarray(tokens.trained, np.bool_)
        trained[:1] = False
        whole_text = trained[1:].all()
        last = len(ids) - 1 if whole_text else 1
        starts = range(0, max(last, 1), self.seq_len - 1)
        cuts = [slice(start, start + self.seq_len) for start in starts]
        pieces = [Example(ids[cut], _first_untrained(trained[cut])) for cut in cuts]
        pieces = [piece for piece in pieces if piece.trained.any()]
        if pieces:
            return pieces
        if trained.any():
            return f"no trained token left after cutting to {self.seq_len}"
        return "no token to learn from"


@dataclass(frozen=True, slots=True)
class _Plan:
    """Texts to tokenise and, for each, the [start, end) characters to learn."""

    segments: tuple[str, ...]
    learnt: tuple[tuple[tuple[int, int], ...], ...]
    templated: bool


def _plain_plan(turns: Sequence[Turn]) -> _Plan:
    """One segment per exchange: what was asked, a newline after each turn, and the reply."""
    segments, learnt, asked = [], [], ""
    for turn in turns:
        if turn.role == "assistant":
            segments.append(asked + turn.text)
            learnt.append(((len(asked), len(asked) + len(turn.text)),))
            asked = ""
        else:
            asked += turn.text + "\n"
    return _Plan(tuple(segments), tuple(learnt), templated=False)


def _mask(spans: Spans, learnt: Sequence[tuple[int, int]]) -> list[bool]:
    """Whether each token holds a character to learn (half of a merged token is enough)."""
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


def collate(examples: Sequence[Example], pad_id: int) -> dict[str, NDArray[np.int64]]:
    """input_ids, attention_mask and labels (−100: not learnt), each (batch, longest), int64.

    Padding stands on the right and is known by its position alone: a pad id that is also the
    <eos> id hides no <eos>.
    """
    shape = (len(examples), max(len(example.input_ids) for example in examples))
    ids, mask = np.full(shape, pad_id, np.int64), np.zeros(shape, np.int64)
    labels = np.full(shape, -100, np.int64)
    for row, example in enumerate(examples):
        n = len(example.input_ids)
        ids[row, :n], mask[row, :n] = example.input_ids, 1
        labels[row, :n] = np.where(example.trained, example.input_ids, -100)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def preview(dataset: Dataset, encoder: Encoder) -> Preview:
    """What training on `dataset` will see; BadData is left to the caller if nothing remains."""
    encoded = encoder.encode_all(dataset.conversations)
    examples = encoded.examples
    first = next((c for c in dataset.conversations if not isinstance(encoder.encode(c), str)), None)
    return Preview(
        layout=dataset.layout,
        template=encoder.template,
        first=() if first is None else encoder.show(first),
        first_origin="" if first is None else first.origin,
        rows=len(dataset.conversations),
        examples=len(examples),
        tokens=sum(len(example.input_ids) for example in examples),
        trained_tokens=sum(int(example.trained.sum()) for example in examples),
        truncated=encoded.truncated,
        dropped=(*dataset.dropped, *encoded.dropped),
    )
