"""Line charts as SVG without a script or a style of their own: the style sheet colours them.

Each is a picture with a sentence for whoever cannot see it; its numbers stand in a table beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup, escape

WIDTH, HEIGHT = 720.0, 240.0
LEFT, RIGHT, TOP, BOTTOM = 64.0, 20.0, 14.0, 34.0
TICKS: Final = 4


@dataclass(frozen=True)
class ChartPoint:
    """A point of a line. low, high: the ends of its spread; None where there is none."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class ChartLine:
    """A line and its name in the legend; kind: its colour, 0 to 3."""

    name: str
    points: tuple[ChartPoint, ...]
    kind: int = 0


@dataclass(frozen=True)
class _Scale:
    x0: float
    x1: float
    y0: float
    y1: float
    step: float  # between two lines of the grid

    def x(self, value: float) -> float:
        return LEFT + (value - self.x0) / (self.x1 - self.x0) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return TOP + (self.y1 - value) / (self.y1 - self.y0) * (HEIGHT - TOP - BOTTOM)


def line_chart(title: str, lines: Sequence[ChartLine], from_zero: bool = False) -> Markup:
    """Return the chart; empty if no line has a point that is a number. x are whole numbers."""
    kept = [_finite(line) for line in lines]
    kept = [line for line in kept if line.points]
    if not kept:
        return Markup("")
    scale = _scale(kept, from_zero)
    parts = [_grid(scale), *(_drawn(line, scale) for line in kept)]
    told = f"{title}. " + " ".join(_told(line) for line in kept)
    return Markup(
        '<svg class="chart" viewBox="0 0 {:g} {:g}" role="img" aria-label="{}">{}</svg>{}'
    ).format(WIDTH, HEIGHT, told, Markup("").join(parts), _legend(kept))


def _finite(line: ChartLine) -> ChartLine:
    points = tuple(point for point in line.points if math.isfinite(point.y))
    return ChartLine(line.name, points, line.kind)


def _scale(lines: Sequence[ChartLine], from_zero: bool) -> _Scale:
    """A scale that holds every point and spread and ends at ticks."""
    xs = [point.x for line in lines for point in line.points]
    ys = [
        value
        for line in lines
        for point in line.points
        for value in (point.y, point.low, point.high)
        if value is not None and math.isfinite(value)
    ]
    low, high = 0.0 if from_zero else min(ys), max(ys)
    step = _step(high - low or abs(high) or 1.0)
    y0, y1 = math.floor(low / step) * step, math.ceil(high / step) * step
    x0, x1 = min(xs), max(xs)
    return _Scale(x0, x1 if x1 > x0 else x0 + 1, y0, y1 if y1 > y0 else y0 + step, step)


def _step(length: float) -> float:
    """1, 2 or 5 times a power of ten: about TICKS of them make the length."""
    least = length / TICKS
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * 0.999)


def _grid(scale: _Scale) -> Markup:
    parts = []
    for tick in range(round((scale.y1 - scale.y0) / scale.step) + 1):
        value = scale.y0 + tick * scale.step
        y = scale.y(value)
        parts.append(
            Markup('<line class="grid" x1="{:g}" x2="{:g}" y1="{:.1f}" y2="{:.1f}"/>').format(
                LEFT, WIDTH - RIGHT, y, y
            )
        )
        parts.append(_text(LEFT - 8, y + 4, "end", f"{value:.6g}"))
    for value in _whole_ticks(scale.x0, scale.x1):
        parts.append(_text(scale.x(value), HEIGHT - 8, "middle", f"{value:g}"))
    return Markup("").join(parts)


def _whole_ticks(low: float, high: float) -> list[int]:
    """At most nine whole numbers from `low` to `high`, equally far apart."""
    step = max(1, math.ceil((high - low) / 8))
    return list(range(math.ceil(low), math.floor(high) + 1, step))


def _drawn(line: ChartLine, scale: _Scale) -> Markup:
    kind = f"line-{line.kind}"
    spread = [p for p in line.points if p.low is not None and p.high is not None]
    path = " ".join(f"{scale.x(p.x):.1f},{scale.y(p.y):.1f}" for p in line.points)
    parts = [
        Markup('<line class="spread {}" x1="{x}" x2="{x}" y1="{:.1f}" y2="{:.1f}"/>').format(
            kind, scale.y(p.low or 0.0), scale.y(p.high or 0.0), x=f"{scale.x(p.x):.1f}"
        )
        for p in spread
    ]
    parts.append(Markup('<polyline class="{}" points="{}"/>').format(kind, path))
    parts += [
        Markup(
            '<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="3"><title>{}</title></circle>'
        ).format(kind, scale.x(p.x), scale.y(p.y), f"{line.name}, {p.x:g}: {p.y:.4g}")
        for p in line.points
    ]
    return Markup("").join(parts)


def _text(x: float, y: float, anchor: str, said: str) -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(
        x, y, anchor, said
    )


def _told(line: ChartLine) -> str:
    first, last = line.points[0], line.points[-1]
    return f"{line.name}: {first.y:.4g} at {first.x:g}, {last.y:.4g} at {last.x:g}."


def _legend(lines: Sequence[ChartLine]) -> Markup:
    if len(lines) < 2:
        return Markup("")
    items = Markup("").join(
        Markup('<li class="line-{}">{}</li>').format(line.kind, escape(line.name)) for line in lines
    )
    return Markup('<ul class="legend">{}</ul>').format(items)
