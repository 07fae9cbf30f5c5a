"""Ways to say something: data on stdout, all else on stderr."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

from nomoat.aggregation.plain_text import lines

LABEL = 13  # columns of a sheet's first word, and the blanks behind it


def say(text: str) -> None:
    """Tell the person at the terminal."""
    sys.stderr.write(lines(text) + "\n")


def wrapped(text: str) -> str:
    """Fold what is wider than the terminal under its label; as it is where nobody looks."""
    if not sys.stderr.isatty():
        return text
    columns = max(shutil.get_terminal_size().columns, 2 * LABEL)
    lay = textwrap.TextWrapper(columns, subsequent_indent=" " * LABEL, break_on_hyphens=False)
    return "\n".join(lay.fill(line) if len(line) > columns else line for line in text.split("\n"))


@contextmanager
def busy(text: str) -> Iterator[Callable[[], None]]:
    """Show on a terminal what is under way, and for how long; nothing elsewhere.

    Gives what ends that before the block does, for whoever has to ask something.
    """
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    shown = Progress(
        SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn(),
        console=Console(stderr=True), transient=True,
    )  # fmt: skip
    shown.add_task(text, total=None)
    shown.start()
    try:
        yield shown.stop
    finally:
        shown.stop()


def say_or_json(as_json: bool, shown: object, text: str) -> None:
    """Print `shown` as one line of JSON, or `text`."""
    if as_json:
        sys.stdout.write(json.dumps(shown) + "\n")
    else:
        typer.echo(lines(text))
