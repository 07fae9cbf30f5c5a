"""`nomoat page`: another link to a page that is open."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Pages in a browser.", no_args_is_help=True)

Folder = Annotated[
    Path | None, typer.Argument(metavar="[DIR]", help="A community's folder; else your own page.")
]


@app.command("link")
def link(folder: Folder = None) -> None:
    """Print a new one-time link to the page that is open here; it holds for ten minutes."""
    from nomoat.client.home import Home
    from nomoat.desk.access.opening import new_link

    typer.echo(new_link((folder / "keys" if folder else Home.find().root) / "page.key"))


@app.callback()
def group() -> None:
    """Pages in a browser."""
