"""Ways to say something: data on stdout, all else on stderr."""

from __future__ import annotations

import json
import sys

import typer

from nomoat.aggregation.plain_text import lines


def say(text: str) -> None:
    """Tell the person at the terminal."""
    sys.stderr.write(lines(text) + "\n")


def say_or_json(as_json: bool, shown: object, text: str) -> None:
    """Print `shown` as one line of JSON, or `text`."""
    if as_json:
        sys.stdout.write(json.dumps(shown) + "\n")
    else:
        typer.echo(lines(text))
