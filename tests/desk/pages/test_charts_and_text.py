"""Charts draw what was measured and nothing else; live parts are sent when they change."""

from __future__ import annotations

import asyncio
import math
import re

import pytest

from nomoat.desk.pages.charts import ChartLine, ChartPoint, line_chart
from nomoat.desk.pages.live import MOST_STREAMS, LiveParts
from nomoat.desk.pages.rendering import shown, size, span


def line(*values: float, name: str = "loss") -> ChartLine:
    return ChartLine(name, tuple(ChartPoint(x, y) for x, y in enumerate(values)))


def ticks(svg: str) -> list[str]:
    return re.findall(r'text-anchor="end">([^<]+)<', svg)


def test_every_number_is_a_point_and_what_is_none_is_not() -> None:
    svg = line_chart("loss", [line(3.0, 2.5, math.nan, math.inf, 2.0)])
    assert svg.count("<circle") == 3
    assert "nan" not in svg
    assert "inf" not in svg
    assert "loss: 3 at 0, 2 at 4." in svg


def test_nothing_measured_is_no_chart() -> None:
    assert line_chart("loss", [line(), line(math.nan)]) == ""


def test_the_grid_ends_at_round_numbers_and_holds_all_points() -> None:
    assert ticks(line_chart("loss", [line(3.07, 2.84)])) == ["2.8", "2.9", "3", "3.1"]
    assert ticks(line_chart("counted", [line(3, 3, 3)], from_zero=True)) == ["0", "1", "2", "3"]
    assert len(ticks(line_chart("one", [line(0.0)]))) >= 2


def test_a_name_in_a_chart_is_text() -> None:
    svg = line_chart("<b>", [line(1.0, 2.0, name="<script>"), line(1.0, name='"x"')])
    assert "<script>" not in svg
    assert "<b>" not in svg


def test_what_would_disturb_its_surroundings_is_made_visible() -> None:
    assert shown("a\u202eb\x1b[2J") == "a\\u202eb\\u001b[2J"
    assert shown("Zoë 字\n") == "Zoë 字\n"
    assert shown(None) == ""
    assert shown(3) == 3


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 << 40, "3.0 TiB")]
)
def test_sizes_are_for_people(count: int, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.25, "0.2 s"), (59, "59 s"), (61, "1 min 01 s"), (3700, "1 h 01 min"), (90_000, "1 d 1 h")],
)
def test_spans_are_for_people(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_a_part_is_sent_when_it_changed_and_only_then() -> None:
    states = iter([{"now": "a"}, {"now": "a"}, {"now": "b"}])
    live = LiveParts(look_s=0.0)

    async def sent() -> list[str]:
        events = live._events(lambda: next(states))
        found = [await anext(events), await anext(events)]
        await events.aclose()
        return found

    first, second = asyncio.run(sent())
    assert first == 'event: part\ndata: {"id": "now", "html": "a"}\n\n'
    assert '"b"' in second
    assert live._open == 0


def test_open_pages_are_bounded() -> None:
    live = LiveParts()
    live._open = MOST_STREAMS
    assert live.stream(dict).status_code == 503
