"""There is a manual page for every command."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import click
import typer

from nomoat.cli import app

SCRIPT = Path(__file__).parents[2] / "docs" / "man.py"


def names(command: click.Command, path: tuple[str, ...]) -> Iterator[str]:
    yield "-".join(path)
    for name, inner in getattr(command, "commands", {}).items():
        if not inner.hidden:
            yield from names(inner, (*path, name))


def test_every_command_has_its_page_with_its_options(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("man", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.write(tmp_path)
    pages = {page.name.removesuffix(".1") for page in tmp_path.glob("*.1")}
    expected = set(names(typer.main.get_command(app), ("nomoat",)))
    assert expected <= pages
    assert r"\fB\-\-data\fP" in (tmp_path / "nomoat-join.1").read_text()
