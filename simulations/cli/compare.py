"""`nomoat compare`: finished runs side by side, as a table and as a page with their curves."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from nomoat.simulations.report.comparison import FinishedRun, Line

app = typer.Typer(add_completion=False)

MARK = 'content="nomoat compare"'  # in every page of ours: any other file is not written over


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders of finished runs.")],
    out: Annotated[
        Path, typer.Option(help="The page to write, or a table: .tex, .md, .csv.")
    ] = Path("comparison.html"),
    as_json: Annotated[bool, typer.Option("--json", help="Lines on stdout.")] = False,
) -> None:
    """Compare simulated runs: a line per setting, mean and spread over its seeds.

    A folder without a finished run is named and left out.
    """
    from rich.console import Console

    from nomoat.simulations.report import comparison
    from nomoat.simulations.report.paper_table import OURS, paper_table
    from nomoat.simulations.run_folder import write_text

    console = Console(stderr=as_json)
    _refuse_foreign(out)
    lines = comparison.compare(_read(runs, Console(stderr=True)))
    table = out.suffix in OURS
    write_text(out, paper_table(lines, out.suffix) if table else comparison.page(lines))
    if as_json:
        json.dump(comparison.as_json(lines), sys.stdout)
        sys.stdout.write("\n")
    else:
        _show(lines, console)
    console.print(
        f"{'table' if table else 'page'}  {out}", markup=False, highlight=False, soft_wrap=True
    )


def _read(paths: Sequence[Path], console: Console) -> list[FinishedRun]:
    from nomoat.aggregation.errors import UsageError
    from nomoat.simulations.report import comparison

    found = []
    for path in dict.fromkeys(paths):
        try:
            found.append(comparison.read(path))
        except UsageError as problem:
            console.print(f"left out: {problem}", markup=False, highlight=False, soft_wrap=True)
    if not found:
        raise UsageError("none of these folders holds a finished run: there is nothing to compare")
    return found


def _show(lines: Sequence[Line], console: Console) -> None:
    """The table, without columns in which nobody has anything; settings stand below it.

    With up to eighty columns nothing is cut off: a terminal is seldom wider.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    from nomoat.simulations.report import comparison

    rows = [comparison.cells(line) for line in lines]
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    numbers = range(comparison.LEFT, len(comparison.HEADINGS))
    shown = [i for i in numbers if any(row[i] != "–" for row in rows)]
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("method", no_wrap=True)
    for i in shown:
        table.add_column(comparison.HEADINGS[i], justify="right", overflow="fold")
    for number, row in enumerate(rows, 1):
        table.add_row(str(number), Text(row[0]), *(Text(row[i]) for i in shown))
    console.print(table)
    console.print(comparison.CAPTION, markup=False, highlight=False)
    for number, row in enumerate(rows, 1):
        if row[1] != "–":
            console.print(f"{number}: {row[1]}", markup=False, highlight=False, soft_wrap=True)


def _refuse_foreign(out: Path) -> None:
    from nomoat.aggregation.errors import UsageError
    from nomoat.simulations.report.paper_table import OURS

    if not out.exists():
        return
    try:
        ours = OURS.get(out.suffix, MARK) in out.read_text("utf-8")[:2000]
    except (OSError, UnicodeDecodeError):
        ours = False
    if not ours:
        raise UsageError(
            f"{out} is in the way, and nothing that nomoat compare wrote: choose another --out"
        )
