"""`nomoat evidence` and `nomoat appeal`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nomoat.client.cli import options
from nomoat.client.cli.output import say_or_json

app = typer.Typer(add_completion=False)


@app.command()
def evidence(
    name: Annotated[
        str | None, typer.Argument(help="Whom it is about (default: this volunteer).")
    ] = None,
    file: Annotated[Path | None, typer.Option(help="Read it from here, ask nobody.")] = None,
    community: options.Which = None,
    as_json: options.AsJson = False,
) -> None:
    """Recompute on this machine what somebody is held for, from what that one signed."""
    from dataclasses import asdict

    from nomoat.client.home import Home
    from nomoat.client.membership import standing
    from nomoat.client.volunteer.kit import Kit

    if file is not None:
        found = standing.of_file(file)
    else:
        home = Home.find()
        folder = home.choose(community)
        kit = Kit.of(home, folder, folder.load())
        found = standing.recomputed(kit.folder, kit.coordinator, name or kit.settings.name)
    shown = {**asdict(found), "accused": found.accused.hex()}
    said = f"round {found.round}: {found.says} (recomputed here from its own signed messages)"
    say_or_json(as_json, shown, said)


@app.command()
def appeal(
    text: Annotated[str, typer.Argument(help="What you say to it, up to 2000 characters.")],
    community: options.Which = None,
) -> None:
    """Answer a hold or a ban: those who run the community read it beside the evidence."""
    from nomoat.client.home import Home
    from nomoat.client.membership import standing
    from nomoat.client.volunteer.kit import Kit

    home = Home.find()
    folder = home.choose(community)
    kit = Kit.of(home, folder, folder.load())
    standing.appeal(kit.folder, kit.coordinator, text)
    typer.echo(f"{folder.name()} has your appeal; nomoat status says when you may take part again")
