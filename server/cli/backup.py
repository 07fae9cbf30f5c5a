"""`nomoat backup`, `restore` and `database move`: a community as one file, or in another place."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from nomoat.server.cli.options import Database, Folder, opened, say

Passphrase = Annotated[
    Path | None,
    typer.Option("--passphrase-file", help="Its first line; else you are asked."),
]


records = typer.Typer(no_args_is_help=True, help="The place of a community's records.")


@records.callback()
def _group() -> None:
    """Keep `move` a command of a group, of which it is the first."""


@records.command()
def move(
    folder: Folder,
    to: Annotated[str, typer.Argument(metavar="URL", help="postgresql://…, or: sqlite")],
) -> None:
    """Move a community's records to PostgreSQL, or back to a file in its folder.

    Nothing is half moved, whatever happens: what was not ended is ended by the same command.
    """
    import datetime
    import os

    from nomoat.server.backup.moving import move_records

    now = datetime.datetime.now(datetime.UTC)
    source, target = move_records(folder, to, os.urandom(8).hex(), now)
    typer.echo(f"moved to {target}")
    say(f"nothing runs off {source} any more; next: nomoat up {folder}")
    say(
        "the old records are still there, marked: delete them once a backup of the new ones is made"
    )


def backup(
    folder: Folder,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write.")],
    passphrase_file: Passphrase = None,
) -> None:
    """Write a community into one file, also while it is up; its keys under a passphrase."""
    from nomoat.server.backup.making import make

    community = opened(folder)
    passphrase = _passphrase(passphrase_file, confirm=True)
    manifest = make(community, file, passphrase, int(time.time()))
    typer.echo(str(file))
    say(
        f"{manifest.name} at version {manifest.version}, round {manifest.round}: "
        f"{file.stat().st_size / 1e6:.1f} MB. Without its passphrase nobody can bring it back, "
        "you neither"
    )
    say(f"to bring it back: nomoat restore {file} NEW_DIR")


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What nomoat backup wrote.")],
    folder: Folder,
    passphrase_file: Passphrase = None,
    wait: Annotated[
        int,
        typer.Option(
            min=0,
            max=10_000,
            metavar="MINUTES",
            help="How long nomoat up asks members at most for what they still hold; 0: not at all.",
        ),
    ] = 60,
    database: Database = None,
) -> None:
    """Bring a community back from a backup, into a folder that holds none."""
    from nomoat.aggregation.errors import UsageError
    from nomoat.server.backup.restoring import restore as bring_back

    if not file.is_file():
        raise UsageError(f"{file} is no file")
    passphrase = _passphrase(passphrase_file, confirm=False)
    manifest = bring_back(file, folder, passphrase, int(time.time()), wait * 60, database)
    made = time.strftime("%Y-%m-%d %H:%M", time.localtime(manifest.at))
    say(f"{manifest.name} is back at version {manifest.version}, as it was on {made}")
    if wait:
        say(f"members are asked for what was lost since then, for {wait} minutes at most")
    else:
        say("if this backup was put back before, begin again and leave --wait 0 out: nobody enters")
        say("rounds a second time, and only members can tell which there have been")
    say("who has seen more than comes back is told so, and goes on with: nomoat accept-restore")
    say("check who is a member afterwards: nomoat volunteers " + str(folder))
    say(f"never start the folder it replaces again; next: nomoat up {folder}")


def _passphrase(file: Path | None, confirm: bool) -> str:
    from nomoat.aggregation.errors import UsageError

    if file is None:
        answer = typer.prompt("Passphrase", hide_input=True, confirmation_prompt=confirm, err=True)
        return str(answer)
    try:
        return file.read_text("utf-8").splitlines()[0]
    except (OSError, UnicodeDecodeError, IndexError):
        raise UsageError(f"{file}: no passphrase can be read from it") from None
