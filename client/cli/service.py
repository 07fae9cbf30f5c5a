"""`nomoat service install` and `remove`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nomoat.client.cli import options

if TYPE_CHECKING:
    from nomoat.client.service.unit_files import Installation

app = typer.Typer(help="Start with the session, without a terminal.", no_args_is_help=True)


Coordinator = Annotated[
    Path | None, typer.Option(metavar="DIR", help="A community's folder, which is kept up.")
]


@app.command("install")
def install(
    community: options.Which = None,
    coordinator: Coordinator = None,
    show: Annotated[
        bool, typer.Option("--print", help="Show the file and the commands, change nothing.")
    ] = False,
) -> None:
    """Take part whenever you are logged in, from now on and after every reboot.

    With --coordinator: keep a community up instead.
    """
    from nomoat.client.service import install as service

    wanted = _installation(community, coordinator)
    if show:
        typer.echo(wanted.content.decode("utf-16" if sys.platform == "win32" else "utf-8"))
        typer.echo(service.render_manual(wanted), err=True)
        return
    typer.echo(service.install(wanted, sys.platform))
    if coordinator is not None and sys.platform.startswith("linux"):
        typer.echo("to keep it up while you are logged out: loginctl enable-linger", err=True)


@app.command("remove")
def remove(community: options.Which = None, coordinator: Coordinator = None) -> None:
    """Stop the service and delete its file."""
    from nomoat.client.service import install as service

    typer.echo(service.remove(_installation(community, coordinator)))


def _installation(community: str | None, folder: Path | None) -> Installation:
    import os

    from nomoat.client.home import Home
    from nomoat.client.service.install import coordinator, wanted

    if folder is not None:
        return coordinator(folder)
    home = Home.opened()
    (first, *_) = home.chosen(community)
    return wanted(home, None if community is None else first, os.environ)
