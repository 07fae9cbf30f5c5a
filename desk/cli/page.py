"""`nomoat page`: another link to a page that is open, and a page for everybody."""

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


@app.command("export")
def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A community's folder.")],
    to: Annotated[Path, typer.Argument(metavar="OUT", help="A new folder.")],
) -> None:
    """Write a static page for everybody: what is made, versions, rules, how to join; no names."""
    import contextlib

    from nomoat.desk.coordinator.public_page import export as write
    from nomoat.server.cli.options import opened

    community = opened(folder)
    with contextlib.closing(community.registrar.database):
        typer.echo(write(community, to))


@app.callback()
def group() -> None:
    """Pages in a browser."""
