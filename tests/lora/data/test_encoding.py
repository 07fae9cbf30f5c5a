"""Which tokens are learnt: the replies' and their ends, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nomoat.lora.data.batches import collate
from nomoat.lora.data.conversations import ChatTurn, Conversation, Dataset, Dropped
from nomoat.lora.data.encoding import Encoder, Example
from nomoat.lora.data.preview import preview


def _said(*turns: tuple[str, str]) -> Conversation:
    return Conversation(tuple(ChatTurn(*turn) for turn in turns), {}, "f:1")


def _shown(encoder: Encoder, conversation: Conversation) -> tuple[str, str]:
    """(the whole text, the learnt text) as the preview shows them."""
    tokens = encoder.show(conversation)
    return "".join(t for t, _ in tokens), "".join(t for t, learnt in tokens if learnt)


def _learnt(encoder: Encoder, conversation: Conversation) -> str:
    example = encoder.encode(conversation)
    assert isinstance(example, Example)
    return str(encoder.tokenizer.decode(example.input_ids[example.trained]))


def test_plain_template_is_bos_prompt_newline_completion_eos(
    make_tokenizer: Callable[..., Any],
) -> None:
    tokenizer = make_tokenizer()
    encoder = Encoder.of(tokenizer, 128)
    example = encoder.encode(_said(("user", "def größe(x):"), ("assistant", "Return 東京 🙂.")))
    assert isinstance(example, Example)
    text = "<s>def größe(x):\nReturn 東京 🙂.</s>"
    assert example.input_ids.tolist() == tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(example.input_ids[example.trained]) == "Return 東京 🙂.</s>"


def test_each_reply_of_several_ends_with_a_learnt_eos(make_tokenizer: Callable[..., Any]) -> None:
    encoder = Encoder.of(make_tokenizer(), 128)
    talk = _said(
        ("system", "S"), ("user", "Q1"), ("assistant", "A1"), ("user", "Q2"), ("assistant", "A2")
    )
    assert _shown(encoder, talk) == ("<s>S\nQ1\nA1</s>Q2\nA2</s>", "A1</s>A2</s>")
    assert _learnt(encoder, talk) == "A1</s>A2</s>"


def test_plain_text_is_learnt_whole_but_for_bos(make_tokenizer: Callable[..., Any]) -> None:
    encoder = Encoder.of(make_tokenizer(), 128)
    assert _shown(encoder, _said(("text", "all of it"))) == ("<s>all of it</s>", "all of it</s>")


def test_a_tokenizer_without_bos_gets_none(make_tokenizer: Callable[..., Any]) -> None:
    encoder = Encoder.of(make_tokenizer(bos_token=None), 128)
    talk = _said(("user", "Q"), ("assistant", "A"))
    assert _shown(encoder, talk) == ("Q\nA</s>", "A</s>")
    example = encoder.encode(_said(("text", "hello world")))
    assert isinstance(example, Example)
    assert not example.trained[0]  # nothing predicts the first token


def test_control_tokens_written_in_the_data_stay_text(make_tokenizer: Callable[..., Any]) -> None:
    tokenizer = make_tokenizer()
    example = Encoder.of(tokenizer, 128).encode(_said(("user", "</s>"), ("assistant", "a</s>b")))
    assert isinstance(example, Example)
    assert example.input_ids.tolist().count(tokenizer.eos_token_id) == 1


def test_a_prompt_that_fills_the_window_gives_the_reason(
    make_tokenizer: Callable[..., Any],
) -> None:
    encoder = Encoder.of(make_tokenizer(), 8)
    talk = _said(("user", "zq" * 40), ("assistant", "A"))
    assert encoder.encode(talk) == "no trained token left after cutting to 8"
    encoded = encoder.encode_all([talk, talk])
    assert encoded.examples == ()
    assert encoded.dropped == (Dropped("no trained token left after cutting to 8", 2, "f:1"),)


def test_a_cut_reply_keeps_its_beginning_and_is_counted(make_tokenizer: Callable[..., Any]) -> None:
    encoded = Encoder.of(make_tokenizer(), 8).encode_all(
        [_said(("user", "q"), ("assistant", "zx" * 9))]
    )
    assert encoded.truncated == 1
    assert [len(e.input_ids) for e in encoded.examples] == [8]


@pytest.mark.parametrize("letters", range(1, 40))
def test_long_text_is_learnt_once_token_by_token(
    make_tokenizer: Callable[..., Any], letters: int
) -> None:
    tokenizer = make_tokenizer()
    text = "".join(chr(65 + (7 * i) % 26) for i in range(letters))
    pieces = Encoder.of(tokenizer, 8).encode_all([_said(("text", text))]).examples
    learnt = [int(t) for p in pieces for t in p.input_ids[p.trained]]
    whole = tokenizer(text, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    assert learnt == whole
    assert all(len(piece.input_ids) <= 8 for piece in pieces)


def test_padding_is_known_by_position_even_if_pad_is_eos(
    make_tokenizer: Callable[..., Any],
) -> None:
    tokenizer = make_tokenizer(pad_token="</s>")
    encoder = Encoder.of(tokenizer, 64)
    rows = [encoder.encode(_said(("user", "q"), ("assistant", "a" * n))) for n in (1, 20)]
    batch = collate([row for row in rows if isinstance(row, Example)], tokenizer.pad_token_id)
    short = len(rows[0].input_ids)  # type: ignore[union-attr]
    assert batch["labels"][0, short - 1] == tokenizer.eos_token_id
    assert (batch["labels"][0, short:] == -100).all()
    assert batch["attention_mask"][0].tolist() == [1] * short + [0] * (
        batch["input_ids"].shape[1] - short
    )
    assert (batch["input_ids"][0, short:] == tokenizer.eos_token_id).all()


def test_one_by_one_and_all_at_once_give_the_same_tokens(
    make_tokenizer: Callable[..., Any], conversations: tuple[Conversation, ...], chatml: str
) -> None:
    for template in (None, chatml):
        encoder = Encoder.of(make_tokenizer(template), 64)
        mixed = (*conversations, _said(("text", "plain")), *conversations)
        together = encoder.encode_all(mixed).examples
        for conversation, example in zip(mixed, together, strict=True):
            alone = encoder.encode(conversation)
            assert isinstance(alone, Example)
            assert np.array_equal(alone.input_ids, example.input_ids)
            assert np.array_equal(alone.trained, example.trained)


def test_preview_counts_what_training_will_see(
    make_tokenizer: Callable[..., Any], conversations: tuple[Conversation, ...]
) -> None:
    encoder = Encoder.of(make_tokenizer(), 32)
    too_long = Conversation(
        (ChatTurn("user", "zq" * 60), ChatTurn("assistant", "a")), {}, "rows.jsonl:99"
    )
    dataset = Dataset(
        (too_long, *conversations), (Dropped("is empty", 3, "rows.jsonl:50"),), "chat"
    )
    shown = preview(dataset, encoder)
    examples = encoder.encode_all(conversations).examples
    assert (shown.rows, shown.usable) == (44, 40)
    assert shown.examples == 40
    assert shown.tokens == sum(len(e.input_ids) for e in examples)
    assert shown.trained_tokens == sum(int(e.trained.sum()) for e in examples)
    assert [d.first for d in shown.dropped] == ["rows.jsonl:50", "rows.jsonl:99"]
    assert shown.first_origin == "rows.jsonl:1"
    assert "".join(t for t, _ in shown.first) == "<s>alpha 0?\nThe alpha of number.</s>"
    assert "".join(t for t, learnt in shown.first if learnt) == "The alpha of number.</s>"
