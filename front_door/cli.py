"""The front door: mounts the commands of every room."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nomoat import __version__
from nomoat.client.cli.app import app as client
from nomoat.data import app as data
from nomoat.desk.cli.commands import app as desk
from nomoat.help_by_person import ByPerson, grouped
from nomoat.server.cli.commands import app as server
from nomoat.server.cli.options import DirCommand
from nomoat.serving.cli import canaries
from nomoat.serving.cli.adapters import app as variants
from nomoat.serving.cli.beginnings import beginning
from nomoat.serving.cli.chat import app as chatting
from nomoat.serving.cli.personal import app as personal
from nomoat.serving.cli.ratings import app as ratings
from nomoat.serving.cli.serve import app as serving
from nomoat.simulations.cli.compare import app as comparing
from nomoat.simulations.cli.simulate import app as simulations
from nomoat.simulations.loopback.cli import app as trying
from nomoat.verify import verify

app = typer.Typer(
    name="nomoat",
    cls=ByPerson,
    help="Fine-tune one LoRA adapter together: everyone on their own machine, with their own data.",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"nomoat {__version__}")
        raise typer.Exit


@app.callback()
def front_door(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show and exit.")
    ] = False,
) -> None:
    """Fine-tune one LoRA adapter together: each on their own machine, with their own data."""
    context.obj = beginning  # for `init --from`: a coordinator's commands know no memberships
    if context.invoked_subcommand is None:
        from nomoat.client.home import Home
        from nomoat.next_steps import next_steps

        typer.echo(next_steps(Home.find(), Path()))


data.registered_commands += ratings.registered_commands
data.registered_commands += canaries.data.registered_commands
app.add_typer(data, name="data")
# What a coordinator does with versions, and what anyone can do with an adapter: one group.
versions = next(group for group in server.registered_groups if group.name == "adapter")
adapter = typer.Typer(help="Adapters: versions, exports, variants.", no_args_is_help=True)
assert versions.typer_instance is not None
adapter.registered_commands += versions.typer_instance.registered_commands
adapter.registered_commands += variants.registered_commands
adapter.registered_commands += canaries.adapters.registered_commands
adapter.registered_commands += personal.registered_commands
for room in (simulations, comparing, trying, server, client, chatting, serving, desk):
    app.registered_commands += room.registered_commands
    app.registered_groups += [group for group in room.registered_groups if group is not versions]
app.add_typer(adapter, name="adapter")
app.command(cls=DirCommand)(verify)
grouped(app)
