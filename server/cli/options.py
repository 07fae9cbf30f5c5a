"""Options that several commands have, and the ways they say something."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

if TYPE_CHECKING:
    import click

    from nomoat.server.community.opened import OpenCommunity

DIR = "--dir"
LEAST_COLUMNS = 60  # narrower, a drawn table would be cut
HELP = "The community's folder, or --dir DIR."

Folder = Annotated[Path, typer.Argument(metavar="DIR", help=HELP)]
Here = Annotated[Path, typer.Argument(metavar="[DIR]", help=f"{HELP} Else the present one.")]
InFolder = Annotated[
    Path, typer.Option(DIR, metavar="DIR", help="The community's folder; else the present one.")
]
Same = Annotated[  # of a command in a group that has --dir, too
    Path | None, typer.Option(DIR, metavar="DIR", help="The community's folder; else the present.")
]
Database = Annotated[
    str | None,
    typer.Option(metavar="URL", help="Records in PostgreSQL: postgresql://…; else a file."),
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]


class DirCommand(TyperCommand):
    """A command whose first argument, the community's folder, may be given as --dir, too."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, with the folder put where its argument is."""
        return super().parse_args(ctx, _folder_first(args))


class DirGroup(TyperGroup):
    """A group of commands with --dir; the folder may also stand before the command's name."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, with a folder that stands first, or after --json alone, given as --dir."""
        at = 1 if args[:1] == ["--json"] else 0
        if args[at:] and not args[at].startswith("-") and args[at] not in self.commands:
            args = [*args[:at], DIR, *args[at:]]
        return super().parse_args(ctx, args)


def _folder_first(args: list[str]) -> list[str]:
    """Arguments with the value of --dir in front."""
    for at, word in enumerate(args):
        if word == "--":
            break
        if word == DIR and at + 1 < len(args):
            return [args[at + 1], *args[:at], *args[at + 2 :]]
        if word.startswith(f"{DIR}="):
            return [word.removeprefix(f"{DIR}="), *args[:at], *args[at + 1 :]]
    return args


def opened(folder: Path) -> OpenCommunity:
    """The community in a folder; NomoatError in one line if there is none."""
    from nomoat.server.community.opened import OpenCommunity

    return OpenCommunity.open(folder)


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given: those that are not None."""
    return {key: value for key, value in options.items() if value is not None}


def print_json(value: object) -> None:
    """Print one JSON value, for programs."""
    sys.stdout.write(json.dumps(value) + "\n")


def say(text: str) -> None:
    """Print a line for people, beside what programs read."""
    sys.stderr.write(text + "\n")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: drawn on a terminal, in plain columns, whole, where it is piped or narrow."""
    from rich.console import Console

    console = Console()
    if console.is_terminal and console.width >= LEAST_COLUMNS:
        from rich.table import Table

        table = Table(*columns)
        for row in rows:
            table.add_row(*row)
        console.print(table)
        return
    table_rows = [columns, *rows]
    widths = [max(len(row[at]) for row in table_rows) for at in range(len(columns))]
    for row in table_rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write("  ".join(cells).rstrip() + "\n")
