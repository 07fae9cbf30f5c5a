"""A difference of two versions as tables in a terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nomoat.serving.variants.difference import VersionDifference

UNMEASURED = "–"


def show(difference: VersionDifference, first: str, second: str) -> None:
    """Print what there is of it: layers, losses by volunteer and by group, answers."""
    console = Console()
    layers = Table("layer", "norm before", "moved by")
    for layer in difference.layers:
        layers.add_row(layer.layer, f"{layer.norm:.4f}", f"{layer.moved:.4f}")
    console.print(layers)
    if difference.volunteers:
        table = Table("volunteer", *map(escape, (first, second)), "change")
        for name, losses in difference.volunteers.items():
            table.add_row(escape(name), *_cells(losses, (first, second)))
        console.print(table)
    for name, loss in difference.losses.items():
        console.print(f"{loss:.4f}  {name}", markup=False, highlight=False)
    if difference.groups:
        table = Table("rows of", "rows", "base", *map(escape, (first, second)), "change")
        for name, group in difference.groups.items():
            cells = _cells(group.losses, ("base", first, second))
            table.add_row(escape(name), str(group.rows), *cells)
        console.print(table)
    if difference.answers:
        side = Table(*map(escape, difference.answers[0]))
        for answer in difference.answers:
            side.add_row(*map(escape, answer.values()))
        console.print(side)


def _cells(losses: Mapping[str, float], names: tuple[str, ...]) -> list[str]:
    """The losses under `names`, and the last one less the one before it."""
    if not losses:
        return [UNMEASURED] * (len(names) + 1)
    change = losses[names[-1]] - losses[names[-2]]
    return [*(f"{losses[name]:.4f}" for name in names), f"{change:+.4f}"]
