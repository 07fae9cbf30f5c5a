"""Conversations written for programs that do not run the model's own template."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from nomoat.aggregation.errors import UsageError
from nomoat.lora.data.conversations import ChatTurn, Conversation
from nomoat.lora.data.encoding import Encoder
from nomoat.lora.export.turns import PLAIN, TurnFormat, template_of, write

ASKED = [
    {"role": "user", "content": "one"},
    {"role": "assistant", "content": "two"},
    {"role": "user", "content": "three"},
]
WITH_DEFAULT_SYSTEM = (
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}<|im_start|>system\nYou "
    "help<|im_end|>\n{% endif %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.mark.parametrize("which", ["none", "chatml", "default system"])
def test_pieces_write_conversations_as_the_template_does(
    which: str, make_tokenizer: Callable[..., Any], chatml: str
) -> None:
    template = {"none": None, "chatml": chatml, "default system": WITH_DEFAULT_SYSTEM}[which]
    tokenizer = make_tokenizer(template)
    turns = TurnFormat.of(tokenizer)
    for messages in (ASKED[:1], ASKED, [{"role": "system", "content": "be brief"}, *ASKED]):
        assert turns.render(messages) == write(tokenizer, messages, answer_next=True)
    assert turns.stop == ("</s>" if which == "none" else "<|im_end|>") or which != "none"


def test_the_plain_template_is_the_format_that_is_trained(
    make_tokenizer: Callable[..., Any],
) -> None:
    tokenizer = make_tokenizer(None)
    assert template_of(tokenizer) is PLAIN
    turns = tuple(
        ChatTurn(m["role"], m["content"])
        for m in [*ASKED, {"role": "assistant", "content": "four"}]
    )  # type: ignore[arg-type]
    example = Encoder.of(tokenizer, 256).encode(Conversation(turns, {}, "row"))
    assert not isinstance(example, str)
    text = write(tokenizer, [*ASKED, {"role": "assistant", "content": "four"}], answer_next=False)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert ids == example.input_ids.tolist()
    assert "{{ '\\n' }}" in PLAIN  # a newline at a block's end would be dropped


def test_a_template_that_depends_on_more_than_roles_has_no_pieces(
    make_tokenizer: Callable[..., Any], chatml: str
) -> None:
    counted = chatml.replace("{{ m['role'] }}", "{{ m['role'] }}{{ loop.index }}")
    with pytest.raises(UsageError, match="chat template"):
        TurnFormat.of(make_tokenizer(counted))


def test_a_template_that_training_cannot_follow_is_not_used_afterwards(
    make_tokenizer: Callable[..., Any],
) -> None:
    shouting = "{% for m in messages %}{{ m['content'] | upper }}|{% endfor %}"
    assert template_of(make_tokenizer(shouting)) is PLAIN


def test_ollamas_template_leaves_bos_to_ollama_where_the_file_says_so(
    make_tokenizer: Callable[..., Any],
) -> None:
    turns = TurnFormat.of(make_tokenizer(None))
    assert '"<s>"' in turns.go_template(None)
    assert '"<s>"' not in turns.go_template("<s>")
    assert '{{ "</s>" }}' in turns.go_template("<s>")
