"""The curves of a run, as SVG for the page and PNG beside it."""

from __future__ import annotations

import contextlib
import io
import itertools
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nomoat.simulations.report.results import Result
from nomoat.storage.atomic import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, COMMUNITY, BASE, SOLO, POOLED = "#1f2933", "#2563eb", "#9aa5b1", "#d97706", "#059669"
WORSE = "#b91c1c"
PALETTE = (COMMUNITY, SOLO, POOLED, WORSE, "#7c3aed", "#0891b2", "#be185d", "#65a30d", "#854d0e")
STYLES = ("-", "--", ":", "-.")  # after the last colour, the next style
MAX_LABEL = 32  # characters


def loss_curve(result: Result) -> Figure:
    """Held-out loss by round, with base, solo and pooled as lines to beat."""
    from matplotlib.ticker import MaxNLocator

    figure = _figure(7.6, 3.9)
    axes = figure.subplots()
    rows = [(r["round"], r["loss"]) for r in result.records if r["loss"] is not None]
    abandoned = [r for r in result.records if not r["committed"] and r["loss"] is not None]
    axes.plot(*zip(*rows, strict=True), color=COMMUNITY, marker="o", ms=4, lw=2, label="together")
    if abandoned:
        points = [(r["round"], r["loss"]) for r in abandoned]
        axes.plot(*zip(*points, strict=True), "x", color=WORSE, label="round abandoned")
    levels = [("base model", result.base_loss, BASE)]
    if result.baselines is not None:
        levels += [
            ("alone (mean)", result.baselines.solo_mean, SOLO),
            ("all data in one place", result.baselines.pooled, POOLED),
        ]
    for label, level, colour in levels:
        if level is not None:
            axes.axhline(level, color=colour, lw=1.4, ls="--", label=f"{label}: {level:.2f}")
    axes.set_xlabel("round")
    axes.set_ylabel("held-out loss, nats per token")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=9)
    return figure


def gains(result: Result, most: int = 40) -> Figure:
    """Draw the fall of each volunteer's held-out loss, best first."""
    base, last = result.records[0]["losses"], result.records[-1]["losses"]
    drops = sorted(((base[v] - last[v], v) for v in base.keys() & last.keys()), reverse=True)[:most]
    figure = _figure(7.6, max(1.6, 0.27 * len(drops) + 0.8))
    axes = figure.subplots()
    names = [_label(name) for _, name in drops]
    values = [drop for drop, _ in drops]
    axes.barh(
        range(len(drops)),
        values,
        color=[COMMUNITY if v >= 0 else WORSE for v in values],
        height=0.65,
    )
    axes.set_yticks(range(len(drops)), names)
    axes.invert_yaxis()
    axes.axvline(0, color=INK, lw=0.8)
    axes.set_xlabel("fall of held-out loss, nats per token")
    return figure


def comparison(curves: Sequence[tuple[str, Sequence[Sequence[float | None]]]]) -> Figure:
    """Held-out loss by round of several settings, each (name, one curve per seed).

    A line is the mean over the seeds measured in that round. Its band is the range over them when
    each seed's own loss at the start is taken off, since seeds draw different held-out rows.
    """
    from matplotlib.ticker import MaxNLocator

    figure = _figure(9.0, 4.6)
    axes = figure.subplots()
    for place, (name, seeds) in enumerate(curves):
        colour = PALETTE[place % len(PALETTE)]
        style = STYLES[place // len(PALETTE) % len(STYLES)]
        points = [(n, found) for n, found in enumerate(_by_round(seeds)) if found]
        rounds = [n for n, _ in points]
        means = [_mean([loss for loss, _ in found]) for _, found in points]
        falls = [[loss - start for loss, start in found] for _, found in points]
        pairs = list(zip(means, falls, strict=True))
        axes.plot(
            rounds, means, lw=1.8, marker="o", ms=3, label=_label(name, 60), color=colour, ls=style
        )
        axes.fill_between(
            rounds,
            [mean + min(fall) - _mean(fall) for mean, fall in pairs],
            [mean + max(fall) - _mean(fall) for mean, fall in pairs],
            color=colour,
            alpha=0.12,
            lw=0,
        )
    axes.set_xlabel("round")
    axes.set_ylabel("held-out loss, nats per token")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize=8)
    return figure


def svg(figure: Figure) -> str:
    """The figure as an <svg> element; the same figure gives the same text."""
    import matplotlib as mpl

    target = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "nomoat", "svg.fonttype": "none"}), _any_script():
        figure.savefig(target, format="svg", metadata={"Date": None})
    text = target.getvalue()
    return text[text.index("<svg") :]


def save_png(figure: Figure, path: Path) -> None:
    """Write the figure as PNG, whole."""
    with replacing(path) as file, _any_script():
        figure.savefig(file, format="png", dpi=150)


@contextlib.contextmanager
def _any_script() -> Iterator[None]:
    """Names may be in scripts that matplotlib's font lacks: boxes then, and no warning for each."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
        yield


def _by_round(seeds: Sequence[Sequence[float | None]]) -> list[list[tuple[float, float]]]:
    """For each round, (loss, the same seed's first measured loss) of the seeds that have one."""
    starts = [next((loss for loss in curve if loss is not None), None) for curve in seeds]
    rows = itertools.zip_longest(*seeds)
    return [
        [
            (loss, start)
            for loss, start in zip(row, starts, strict=True)
            if loss is not None and start is not None
        ]
        for row in rows
    ]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _label(name: str, most: int = MAX_LABEL) -> str:
    """A name in a picture: short, and its dollar signs no formula."""
    text = " ".join(name.split())
    text = text if len(text) <= most else text[: most - 1] + "…"
    return text.replace("$", r"\$")


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_facecolor("white")
    return figure
