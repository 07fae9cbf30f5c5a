"""`nomoat adapter`: versions are listed, shown, verified and gone back to.

`adapter export` is serving/cli/adapters.py: it writes any adapter, of whomever.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nomoat.server.cli.options import (
    AsJson,
    InFolder,
    given,
    opened,
    print_json,
    print_table,
    say,
)

if TYPE_CHECKING:
    from nomoat.aggregation.protocol.lineage import SignedVersion

app = typer.Typer(help="Versions of the community adapter.", no_args_is_help=True)


@app.command("list")
def list_versions(folder: InFolder = Path(), as_json: AsJson = False) -> None:
    """All versions: round, contributors, held-out loss."""
    records = opened(folder).versions.database.versions()
    if as_json:
        print_json([_row(record) for record in records])
        return
    rows = []
    for record in records:
        shown = _row(record)
        losses = (shown["loss"], shown["evaluation"])
        loss, own = ("" if value is None else f"{value:.4f}" for value in losses)
        count = str(len(shown["contributors"]))
        row = (str(shown["number"]), str(shown["round"]), count, loss, own)
        rows.append((*row, shown["adapter"][:12], shown["note"]))
    columns = ("version", "round", "contributors", "loss", "evaluation", "adapter", "note")
    print_table(columns, rows)


@app.command()
def show(
    number: Annotated[int | None, typer.Argument(help="The newest if left out.")] = None,
    folder: InFolder = Path(),
) -> None:
    """One version, as JSON."""
    record = opened(folder).versions.get(number)
    print_json(_row(record))
    which = f"--version {record.version.number} --dir {folder}"
    say(f"to use it as a PEFT adapter: nomoat adapter export NEW_FOLDER {which}")


@app.command()
def verify(
    folder: InFolder = Path(),
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="OTHER",
            help="Another community's folder, or the origin.rec of one: has either grown from "
            "the other?",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check every version: chain, signatures, files, and the version this began with."""
    from nomoat.server.descent import check_begun, check_related

    community = opened(folder)
    count, begun = community.versions.verify(), check_begun(community)
    related = None if against is None else check_related(community, against)
    if as_json:
        lineage = given({"begun_with": begun, "related": related})
        print_json({"versions": count, "ok": True, **lineage})
        return
    typer.echo(f"{count} versions: chain, signatures and files are whole")
    for line in (begun, related):
        if line is not None:
            typer.echo(line)


@app.command()
def rollback(
    number: Annotated[int, typer.Argument(help="The version to go back to.")],
    folder: InFolder = Path(),
) -> None:
    """Go on from an older version: a new one is added, none is rewritten."""
    from nomoat.storage.atomic import held

    community = opened(folder)
    up = f"{folder} is up, and its next round would undo this; stop nomoat up first"
    with held(community.folder.up_lock, up):
        record = community.versions.rollback(number, int(time.time()))
    typer.echo(f"version {record.version.number} is version {number} again")
    say("nomoat up goes on from it")


def _row(record: SignedVersion) -> dict[str, Any]:
    version = record.version
    return {
        "number": version.number,
        "record": record.digest.hex(),
        "parent": version.parent.hex(),
        "adapter": version.adapter.hex(),
        "base_hash": version.base_hash.hex(),
        "round": version.round,
        "method": version.method,
        "contributors": list(version.contributors),
        "loss": version.loss,
        "parent_loss": version.parent_loss,
        "evaluation": version.evaluation,
        "note": version.note,
        "at": version.at,
        "signature": record.signature.hex(),
    }
