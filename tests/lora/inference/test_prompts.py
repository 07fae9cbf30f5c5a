"""A prompt is what the model was trained to read before its answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from nomoat.aggregation.errors import UsageError
from nomoat.lora.data.conversations import ChatTurn, Conversation
from nomoat.lora.data.encoding import Encoder
from nomoat.lora.inference.prompts import Message, Prompts

CHAT = [Message("user", "one"), Message("assistant", "two"), Message("user", "three </s> four")]


@pytest.mark.parametrize("templated", [False, True])
def test_prompt_and_answer_are_the_row_that_is_trained(
    templated: bool, make_tokenizer: Callable[..., Any], chatml: str
) -> None:
    tokenizer = make_tokenizer(chatml if templated else None)
    prompts = Prompts.of(tokenizer)
    chat = [Message(m.role, m.content.replace("</s> ", "")) for m in CHAT]
    prompt = prompts.chat(chat)
    turns = (*(ChatTurn(m.role, m.content) for m in chat), ChatTurn("assistant", "five"))
    example = Encoder.of(tokenizer, 256).encode(Conversation(turns, {}, "row"))
    assert not isinstance(example, str)
    trained = example.input_ids.tolist()
    assert tuple(trained[: len(prompt)]) == prompt
    answer = tokenizer.decode(trained[len(prompt) :], skip_special_tokens=True)
    assert answer.strip() == "five"
    assert prompts.plain is not templated


def test_control_tokens_written_out_by_someone_stay_text(
    make_tokenizer: Callable[..., Any],
) -> None:
    tokenizer = make_tokenizer(None)
    prompts = Prompts.of(tokenizer)
    assert prompts.chat(CHAT).count(tokenizer.eos_token_id) == 1  # the one after the reply
    assert tokenizer.eos_token_id not in prompts.text("a </s> b")
    assert prompts.text("a")[0] == tokenizer.bos_token_id


def test_a_template_that_refuses_says_so(make_tokenizer: Callable[..., Any], chatml: str) -> None:
    strict = chatml.replace(
        "{% for m in messages %}",
        "{% for m in messages %}{% if not loop.first and m['role'] == loop.previtem['role'] %}"
        "{{ raise_exception('roles must alternate') }}{% endif %}",
    )
    with pytest.raises(UsageError, match="roles must alternate"):
        Prompts.of(make_tokenizer(strict)).chat([CHAT[0], CHAT[0]])


def test_a_template_without_a_system_role_gets_it_as_part_of_the_question(
    make_tokenizer: Callable[..., Any], chatml: str
) -> None:
    strict = chatml.replace(
        "{% for m in messages %}",
        "{% for m in messages %}{% if m['role'] == 'system' %}"
        "{{ raise_exception('no system') }}{% endif %}",
    )
    prompts = Prompts.of(make_tokenizer(strict))
    merged = prompts.chat([Message("user", "be brief\n\none")])
    assert prompts.chat([Message("system", "be brief"), Message("user", "one")]) == merged
