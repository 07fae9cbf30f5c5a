"""A template that asks for the date is told one date, in every time zone and on every day."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import jinja2
import pytest

from nomoat.lora.data.chat_template import ChatTemplate
from nomoat.lora.data.conversations import ChatTurn
from nomoat.lora.data.template_clock import TODAY, with_fixed_clock

DATED = (
    "{%- if not date is defined %}{% if strftime_now is defined %}"
    "{% set date = strftime_now('%d %b %Y, %A, day %-d, %H:%M %Z %s') %}{% endif %}{% endif %}\n"
    "  {% if true %}<|im_start|>system\nToday is {{ date }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture
def zone() -> Iterator[Callable[[str], None]]:
    before = os.environ.get("TZ")

    def move(name: str) -> None:
        os.environ["TZ"] = name
        time.tzset()

    yield move
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


def test_two_time_zones_give_one_text(
    make_tokenizer: Callable[..., Any], zone: Callable[[str], None]
) -> None:
    chat = ChatTemplate.of(make_tokenizer(DATED))
    assert chat.self_test() == ""
    turns = (ChatTurn("user", "a"), ChatTurn("assistant", "b"))
    texts = set()
    for name in ("Pacific/Kiritimati", "Pacific/Midway", "Asia/Kathmandu"):
        zone(name)
        texts.add((chat.render(turns)[0].text, chat.prompt("a")))
    ((text, _),) = texts
    assert "Today is 26 Jul 2024, Friday, day 26, 12:00 UTC 1721995200<|im_end|>" in text


@pytest.mark.parametrize(
    "start",
    ["", "\n", "\n\n", "  ", "  {% if true %}x{% endif %}", "\n{{ 'y' }}", "{# note #}\n z"],
)
def test_what_the_template_writes_around_the_date_stays_the_same(start: str) -> None:
    def written(template: str, **known: Any) -> str:
        environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
        environment.globals |= known
        return environment.from_string(template).render()

    template = start + "{{ strftime_now('%Y-%m-%d') }}{%- set x = 1 %}\n end\n"
    asked = written(template, strftime_now=TODAY.strftime)
    assert written(with_fixed_clock(template)) == asked


def test_a_template_that_never_asks_is_left_alone(chatml: str) -> None:
    assert with_fixed_clock(chatml) == chatml


@pytest.mark.parametrize("chance", ["{{ ['a', 'b'] | random }}", "{{ lipsum(1) }}"])
def test_a_template_that_draws_is_not_used(
    make_tokenizer: Callable[..., Any], chatml: str, chance: str
) -> None:
    chat = ChatTemplate.of(make_tokenizer(chance + chatml))
    assert chat.self_test() == "the chat template writes something at random"
