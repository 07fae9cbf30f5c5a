"""The front door: mounts the commands of every room."""

from __future__ import annotations

from typing import Annotated

import typer

from nomoat import __version__
from nomoat.client.cli.app import app as client
from nomoat.data import app as data
from nomoat.server.cli.commands import app as server
from nomoat.serving.cli.chat import app as chatting
from nomoat.serving.cli.serve import app as serving
from nomoat.simulations.cli.compare import app as comparing
from nomoat.simulations.cli.simulate import app as simulations
from nomoat.simulations.loopback.cli import app as trying

app = typer.Typer(
    name="nomoat",
    help="Fine-tune one LoRA adapter together: everyone on their own machine, with their own data.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"nomoat {__version__}")
        raise typer.Exit


@app.callback()
def front_door(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show and exit.")
    ] = False,
) -> None:
    """Fine-tune one LoRA adapter together: each on their own machine, with their own data."""


app.add_typer(data, name="data")
for room in (simulations, comparing, trying, server, client, chatting, serving):
    app.registered_commands += room.registered_commands
    app.registered_groups += room.registered_groups
