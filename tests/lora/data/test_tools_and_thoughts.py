"""Tool calls, thoughts and marks reach the tokens as templates write them, or give a reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from nomoat.lora.data.conversations import ChatTurn, Conversation, ToolCall
from nomoat.lora.data.encoding import Encoder

OPEN, CLOSE = "<|im_start|>", "<|im_end|>\n"
GENERATE = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
TOOLS = "{% if tools %}<|im_start|>tools\n{{ tools | tojson }}<|im_end|>\n{% endif %}"

# As the Qwen family writes: calls behind the text, results as turns of their own.
CALLING = (
    TOOLS + "{% for m in messages %}<|im_start|>{{ m.role }}"
    "{% if m.content %}{{ '\n' + m.content }}{% endif %}"
    "{% for c in m.tool_calls or [] %}{{ '\n' }}<tool_call>\n"
    '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}\n'
    "</tool_call>{% endfor %}<|im_end|>\n{% endfor %}" + GENERATE
)
# As the Mistral family: calls instead of the text, ids of nine letters, no content beside them.
STRICT = (
    "{% if tools %}[AVAILABLE_TOOLS]{{ tools | tojson }}{% endif %}"
    "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }}[/INST]"
    "{% elif m.tool_calls %}{% if m.content is defined %}{{ raise_exception('content') }}"
    "{% endif %}[TOOL_CALLS]{% for c in m.tool_calls %}{% if c.id | length != 9 %}"
    "{{ raise_exception('ids have nine letters') }}{% endif %}{{ c.function | tojson }}{{ c.id }}"
    "{% endfor %}{{ eos_token }}{% elif m.role == 'assistant' %} {{ m.content }}{{ eos_token }}"
    "{% else %}[TOOL_RESULTS]{{ m.content }}{{ m.tool_call_id }}[/TOOL_RESULTS]{% endif %}"
    "{% endfor %}"
)
# One call a turn, as Llama 3.1 has it.
SINGLE = CALLING.replace(
    "{% for c in m.tool_calls or [] %}",
    "{% if m.tool_calls and m.tool_calls | length > 1 %}{{ raise_exception('one call at once') }}"
    "{% endif %}{% for c in m.tool_calls or [] %}",
)
NO_TOOLS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    + GENERATE
)
DEAF = NO_TOOLS.replace("in messages %}", "in messages if m.role != 'tool' %}")
NO_CALLS = TOOLS + NO_TOOLS
# Keeps what was thought before the last reply only, and takes it from a field or the content.
QWEN3 = (
    "{% set ns = namespace(last=-1) %}{% for m in messages %}{% if m.role == 'user' %}"
    "{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% set text = m.content or '' %}"
    "{% set thought = m.reasoning_content or '' %}"
    "{% if not thought and '</think>' in text %}"
    "{% set thought = text.split('</think>')[0].split('<think>')[-1].strip('\n') %}"
    "{% set text = text.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "{% if m.role == 'assistant' and loop.index0 > ns.last %}"
    "<think>\n{{ thought.strip('\n') }}\n</think>\n\n{{ text.lstrip('\n') }}"
    "{% else %}{{ text }}{% endif %}"
    "{% for c in m.tool_calls or [] %}\n<tool_call>{{ c.function | tojson }}</tool_call>"
    "{% endfor %}<|im_end|>\n{% endfor %}" + GENERATE
)
# Leaves every thought out, and opens one in the prompt.
R1 = (
    "{% for m in messages %}{% if m.role == 'assistant' %}<|im_start|>A "
    "{{ m.content.split('</think>')[-1] }}</s>{% else %}<|im_start|>U {{ m.content }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>A <think>\n{% endif %}"
)
# A channel for thoughts, as gpt-oss.
CHANNELS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}{% if m.thinking %}<|analysis|>"
    "{{ m.thinking }}<|im_end|><|im_start|>{{ m.role }}{% endif %}<|final|>{{ m.content }}"
    "<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant{% endif %}"
)
THOUGHTFUL = ChatTurn("assistant", "<think>\nTwice two.\n</think>\n\nFour.")
APART = ChatTurn("assistant", "Four.", thought="Twice two.")
ASK, AGAIN = ChatTurn("user", "Two and two?"), ChatTurn("user", "Are you sure?")
SURE = ChatTurn("assistant", "Quite.")


def _stretches(encoder: Encoder, *turns: ChatTurn, tools: str = "") -> list[list[str]] | str:
    """For each text the learnt stretches, decoded; or why the conversation is dropped."""
    texts = next(encoder.tokens((Conversation(turns, {}, "f:1", tools),)))
    if isinstance(texts, str):
        return texts
    found = []
    for text in texts:
        stretches: list[list[int]] = []
        for place, (token, learnt) in enumerate(zip(text.ids, text.trained, strict=True)):
            if learnt and (place == 0 or not text.trained[place - 1]):
                stretches.append([])
            if learnt:
                stretches[-1].append(token)
        found.append([encoder.tokenizer.decode(ids) for ids in stretches])
    return found


def _whole(encoder: Encoder, *turns: ChatTurn, tools: str = "") -> list[str]:
    texts = next(encoder.tokens((Conversation(turns, {}, "f:1", tools),)))
    assert not isinstance(texts, str), texts
    return [encoder.tokenizer.decode(text.ids) for text in texts]


DEPTH = ToolCall("depth", '{"lock": 3}', "call-1")
WIND = ToolCall("wind", "{}", "call-2")
OFFERED = '[{"type": "function", "function": {"name": "depth"}}]'
RESULT = ChatTurn("tool", "2 m", name="depth", call_id="call-1")
CALL_3 = '{"name": "depth", "arguments": {"lock": 3}}'


def test_calls_results_and_tools_stand_where_the_template_writes_them(
    make_tokenizer: Callable[..., Any],
) -> None:
    encoder = Encoder.of(make_tokenizer(CALLING), 512)
    call = ChatTurn("assistant", "", calls=(DEPTH, WIND))
    talk = ASK, call, RESULT, ChatTurn("assistant", "Two metres.")
    learnt = _stretches(encoder, *talk, tools=OFFERED)
    second = CALL_3.replace("depth", "wind").replace('{"lock": 3}', "{}")
    calls = "".join(f"\n<tool_call>\n{call}\n</tool_call>" for call in (CALL_3, second))
    assert learnt == [[f"{calls.lstrip()}<|im_end|>", "Two metres.<|im_end|>"]]
    (whole,) = _whole(encoder, *talk, tools=OFFERED)
    assert "<|im_start|>tool\n2 m<|im_end|>" in whole
    assert '"name": "depth"' in whole.split(CLOSE)[0]


def test_a_call_beside_text_is_learnt_with_it(make_tokenizer: Callable[..., Any]) -> None:
    encoder = Encoder.of(make_tokenizer(CALLING), 512)
    both = ChatTurn("assistant", "One moment.", calls=(DEPTH,))
    ((said,),) = _stretches(encoder, ASK, both)
    assert said == f"One moment.\n<tool_call>\n{CALL_3}\n</tool_call><|im_end|>"


def test_a_template_with_its_own_demands_on_calls_gets_them(
    make_tokenizer: Callable[..., Any],
) -> None:
    encoder = Encoder.of(make_tokenizer(STRICT), 512)
    call = ChatTurn("assistant", "", calls=(DEPTH,))
    talk = ASK, call, RESULT, ChatTurn("assistant", "Two metres.")
    learnt = _stretches(encoder, *talk, tools=OFFERED)
    assert not isinstance(learnt, str), learnt
    ((called, said),) = learnt
    assert called.startswith("[TOOL_CALLS]")
    assert '"lock": 3' in called
    assert called.endswith("</s>")
    assert said == " Two metres.</s>"


@pytest.mark.parametrize(
    ("template", "turns", "tools", "reason"),
    [
        (SINGLE, (ASK, ChatTurn("assistant", "", calls=(DEPTH, WIND))), "", "one call at once"),
        (NO_TOOLS, (ASK, SURE), OFFERED, "leaves out the tools"),
        (NO_CALLS, (ASK, ChatTurn("assistant", "x", calls=(DEPTH,))), OFFERED, "calls of tools"),
        (R1, (ASK, ChatTurn("assistant", "x", "why", calls=(DEPTH,))), "", "calls of tools"),
        (
            DEAF,
            (ASK, SURE, RESULT, SURE),
            "",
            "leaves out a turn of the role 'tool'",
        ),
    ],
)
def test_what_a_template_cannot_write_drops_the_row_with_the_reason(
    make_tokenizer: Callable[..., Any],
    template: str,
    turns: tuple[ChatTurn, ...],
    tools: str,
    reason: str,
) -> None:
    learnt = _stretches(Encoder.of(make_tokenizer(template), 512), *turns, tools=tools)
    assert isinstance(learnt, str)
    assert reason in learnt


def test_the_plain_template_writes_tools_calls_and_thoughts(
    make_tokenizer: Callable[..., Any],
) -> None:
    encoder = Encoder.of(make_tokenizer(), 512)
    call = ChatTurn("assistant", "One moment.", thought="Ask the gauge.", calls=(DEPTH,))
    talk = ChatTurn("system", "S"), ASK, call, RESULT, ChatTurn("assistant", "Two metres.")
    (whole,) = _whole(encoder, *talk, tools=OFFERED)
    said = f"<think>\nAsk the gauge.\n</think>\n\nOne moment.\n{CALL_3}</s>"
    assert whole == f"<s>S\n{OFFERED}\nTwo and two?\n{said}2 m\nTwo metres.</s>"
    assert _stretches(encoder, *talk, tools=OFFERED) == [[said, "Two metres.</s>"]]


@pytest.mark.parametrize("template", [None, NO_TOOLS, QWEN3])
def test_turns_that_are_not_to_be_learnt_are_context_alone(
    make_tokenizer: Callable[..., Any], template: str | None
) -> None:
    encoder = Encoder.of(make_tokenizer(template), 512)
    wrong = ChatTurn("assistant", "Five.", trained=False)
    (learnt,) = _stretches(encoder, ASK, wrong, AGAIN, ChatTurn("assistant", "Four."))
    assert "Five" not in "".join(learnt)
    assert "Four" in "".join(learnt)
    (whole,) = _whole(encoder, ASK, wrong, AGAIN, ChatTurn("assistant", "Four."))
    assert "Five." in whole


@pytest.mark.parametrize("reply", [THOUGHTFUL, APART])
@pytest.mark.parametrize(
    ("template", "learnt"),
    [
        (None, "<think>\nTwice two.\n</think>\n\nFour.</s>"),
        (NO_TOOLS, "<think>\nTwice two.\n</think>\n\nFour.<|im_end|>"),
        (QWEN3, "<think>\nTwice two.\n</think>\n\nFour.<|im_end|>"),
        (R1, "Twice two.\n</think>\n\nFour.</s>"),
        (CHANNELS, "<|analysis|>Twice two.<|im_end|><|im_start|>assistant<|final|>Four.<|im_end|>"),
    ],
)
def test_a_thought_is_learnt_as_the_model_has_to_write_it(
    make_tokenizer: Callable[..., Any], template: str | None, learnt: str, reply: ChatTurn
) -> None:
    encoder = Encoder.of(make_tokenizer(template), 512)
    assert _stretches(encoder, ASK, reply) == [[learnt]]
    (whole,) = _whole(encoder, ASK, reply)
    if template:
        assert whole.startswith(encoder.tokenizer.decode(encoder.prompt_ids(ASK.text)))


@pytest.mark.parametrize("template", [QWEN3, R1])
def test_earlier_thoughts_are_learnt_apart_where_the_template_leaves_them_out(
    make_tokenizer: Callable[..., Any], template: str
) -> None:
    encoder = Encoder.of(make_tokenizer(template), 512)
    texts = _stretches(encoder, ASK, THOUGHTFUL, AGAIN, SURE)
    assert not isinstance(texts, str)
    said = ["".join(stretches) for stretches in texts]
    assert len(said) == 2
    assert "Quite." in said[0]
    assert "Twice" not in said[0]
    assert "Twice two." in said[1]
    assert "Four." in said[1]
    assert "Quite." not in said[1]


def test_a_thought_before_a_call_is_learnt_with_it(make_tokenizer: Callable[..., Any]) -> None:
    encoder = Encoder.of(make_tokenizer(QWEN3), 512)
    call = ChatTurn("assistant", "", thought="Ask the gauge.", calls=(DEPTH,))
    ((called, said),) = _stretches(encoder, ASK, call, RESULT, APART)
    assert called.startswith("<think>\nAsk the gauge.\n</think>")
    assert '"depth"' in called
    assert said == "<think>\nTwice two.\n</think>\n\nFour.<|im_end|>"
