"""Options that several commands have, and the ways they say something."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from nomoat.server.community.opened import OpenCommunity

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The community's folder.")]
InFolder = Annotated[Path, typer.Option("--dir", metavar="DIR", help="The community's folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]


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
