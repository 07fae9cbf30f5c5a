"""`nomoat verify`: every promise, of a community by its folder, or to this machine's owner."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer


def verify(
    folder: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="A community's folder.")
    ] = None,
    mine: Annotated[
        bool, typer.Option("--mine", help="What is on this machine of the communities joined.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One object on stdout.")] = False,
) -> None:
    """Read everything and check every promise: chain, history, sums, receipts, files."""
    import json

    from nomoat.aggregation.errors import UsageError

    if mine == (folder is not None):
        raise UsageError("give a community's folder, or --mine")
    faults = list(_mine() if folder is None else _community(folder))
    if as_json:
        typer.echo(json.dumps({"ok": not faults, "faults": faults}))
    else:
        for fault in faults:
            typer.echo(fault)
        typer.echo(f"{len(faults)} faults" if faults else "every promise holds")
    raise typer.Exit(1 if faults else 0)


def _community(folder: Path) -> Iterator[str]:
    import contextlib

    from nomoat.server.audit.promises import audit
    from nomoat.server.community.opened import OpenCommunity

    community = OpenCommunity.open(folder)
    with contextlib.closing(community.registrar.database):
        community.folder.check_keys()
        yield from (fault for fault in audit(community) if fault is not None)


def _mine() -> Iterator[str]:
    from nomoat.client.doctor.own_records import broken_promises
    from nomoat.client.home import Home
    from nomoat.client.identity.keys import load_identity

    home = Home.find()
    identity = load_identity(home.identity).public
    for folder in home.chosen(None):
        name = folder.name()
        yield from (f"{name}: {fault}" for fault in broken_promises(folder, identity))
