"""With a chat template, the mask follows what the template writes, whatever its habits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from nomoat.lora.data.chat_template import ChatTemplate, Unclear
from nomoat.lora.data.conversations import ChatTurn, Conversation
from nomoat.lora.data.encoding import Encoder, Example

LLAMA2 = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + m['content'] + "
    "' [/INST]' }}{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] | trim + ' ' "
    "+ eos_token }}{% else %}{{ raise_exception('no system role') }}{% endif %}{% endfor %}"
)
# Writes an empty thought before the last reply only, and opens it in the generation prompt.
THINKING = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
NO_END = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
SHOUTING = "{% for m in messages %}{{ m['content'] | upper }}{% endfor %}"
FORGETFUL = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ m['content'] }}{% endif %}{% endfor %}"
)
TALK = (
    ChatTurn("user", "Q1"),
    ChatTurn("assistant", "A1"),
    ChatTurn("user", "Q2"),
    ChatTurn("assistant", " A2\n"),
)


def _encoder(make_tokenizer: Callable[..., Any], template: str, seq_len: int = 256) -> Encoder:
    return Encoder.of(make_tokenizer(template), seq_len)


def _learnt(encoder: Encoder, *turns: ChatTurn) -> list[str]:
    """The learnt stretches, one string each, decoded from the ids."""
    example = encoder.encode(Conversation(turns, {}, ""))
    assert isinstance(example, Example), example
    stretches: list[list[int]] = []
    for place, (token, learnt) in enumerate(zip(example.input_ids, example.trained, strict=True)):
        if learnt and (place == 0 or not example.trained[place - 1]):
            stretches.append([])
        if learnt:
            stretches[-1].append(int(token))
    return [encoder.tokenizer.decode(ids) for ids in stretches]


def test_chatml_learns_each_reply_and_its_end_of_turn(
    make_tokenizer: Callable[..., Any], chatml: str
) -> None:
    encoder = _encoder(make_tokenizer, chatml)
    assert encoder.template == "the tokenizer's chat template"
    assert _learnt(encoder, *TALK) == ["A1<|im_end|>", " A2\n<|im_end|>"]
    system = (ChatTurn("system", "S"), *TALK[:2])
    assert _learnt(encoder, *system) == ["A1<|im_end|>"]


def test_llama2_learns_up_to_eos_and_takes_a_system_turn_into_the_question(
    make_tokenizer: Callable[..., Any],
) -> None:
    encoder = _encoder(make_tokenizer, LLAMA2)
    assert _learnt(encoder, *TALK) == [" A1 </s>", " A2 </s>"]
    example = encoder.encode(Conversation((ChatTurn("system", "S"), *TALK[:2]), {}, ""))
    assert isinstance(example, Example)
    assert encoder.tokenizer.decode(example.input_ids) == "<s>[INST] S\n\nQ1 [/INST] A1 </s>"


def test_a_template_that_treats_the_last_reply_otherwise_is_followed(
    make_tokenizer: Callable[..., Any],
) -> None:
    learnt = _learnt(_encoder(make_tokenizer, THINKING), *TALK)
    assert learnt == ["A1<|im_end|>", "\n</think>\n\n A2\n<|im_end|>"]


def test_replies_that_look_like_the_template_are_placed_right(
    make_tokenizer: Callable[..., Any],
) -> None:
    for said in ("t", "a", "im_end", "think", "assistant"):
        turns = (ChatTurn("user", said), ChatTurn("assistant", said), *TALK[:2])
        learnt = _learnt(_encoder(make_tokenizer, THINKING), *turns)
        assert learnt == [f"{said}<|im_end|>", "\n</think>\n\nA1<|im_end|>"]


def test_a_template_without_an_end_of_turn_gets_a_learnt_eos(
    make_tokenizer: Callable[..., Any],
) -> None:
    encoder = _encoder(make_tokenizer, NO_END)
    assert _learnt(encoder, *TALK) == ["A1", " A2\n</s>"]


@pytest.mark.parametrize("template", [SHOUTING, FORGETFUL, "{{ messages[9].content }}", "{% if %}"])
def test_a_template_that_fails_its_self_test_is_not_used_and_says_why(
    make_tokenizer: Callable[..., Any], template: str
) -> None:
    encoder = _encoder(make_tokenizer, template)
    assert encoder.template.startswith("plain, because the chat template ")
    assert _learnt(encoder, *TALK[:2]) == ["A1</s>"]


def test_a_conversation_that_begins_with_a_reply_is_dropped_with_a_reason(
    make_tokenizer: Callable[..., Any], chatml: str
) -> None:
    encoder = _encoder(make_tokenizer, chatml)
    assert encoder.encode(Conversation(TALK[1:], {}, "")) == "begins with a reply"
    with pytest.raises(Unclear):
        ChatTemplate.of(encoder.tokenizer).render(TALK[1:])


def test_prompts_open_the_reply_as_training_saw_it(
    make_tokenizer: Callable[..., Any], chatml: str
) -> None:
    for template in (chatml, None):
        encoder = Encoder.of(make_tokenizer(template), 256)
        example = encoder.encode(Conversation(TALK[:2], {}, ""))
        assert isinstance(example, Example)
        opening = encoder.prompt_ids("Q1")
        assert example.input_ids[: len(opening)].tolist() == opening
        assert example.trained[len(opening)]
        assert not example.trained[: len(opening)].any()
