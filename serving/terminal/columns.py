"""Answers of several voices beside one another."""

from __future__ import annotations

from collections.abc import Mapping

from rich import box
from rich.table import Table
from rich.text import Text


def columns(texts: Mapping[str, str]) -> Table:
    """A table with one column a voice."""
    table = Table(box=box.SIMPLE, expand=True)
    for voice in texts:
        table.add_column(voice, ratio=1, overflow="fold")
    table.add_row(*(Text(text) for text in texts.values()))
    return table
