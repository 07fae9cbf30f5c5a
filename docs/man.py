"""Write a manual page for every command, as sections of man: python docs/man.py FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path

import typer
from click_man.core import write_man_pages

from nomoat import __version__
from nomoat.cli import app


def write(folder: Path) -> None:
    """Write nomoat.1, nomoat-join.1, … into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    command = typer.main.get_command(app)
    write_man_pages("nomoat", command, version=__version__, target_dir=str(folder))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
