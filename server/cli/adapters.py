"""`nomoat adapter`: versions are listed, shown, verified and gone back to.

`adapter export` is serving/cli/adapters.py: it writes any adapter, of whomever.
"""

from __future__ import annotations

import time
from dataclasses import asdict
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
    from nomoat.server.community.opened import OpenCommunity
    from nomoat.server.release.releasing import ReleaseState

app = typer.Typer(help="Versions of the community adapter.", no_args_is_help=True)


@app.command("list")
def list_versions(folder: InFolder = Path(), as_json: AsJson = False) -> None:
    """All versions: round, contributors, held-out loss."""
    community = opened(folder)
    states = _states(community)
    records = community.versions.database.versions()
    if as_json:
        print_json([{**_row(each), "state": states[each.version.number]} for each in records])
        return
    rows = []
    for record in records:
        shown = _row(record)
        losses = (shown["loss"], shown["evaluation"])
        loss, own = ("" if value is None else f"{value:.4f}" for value in losses)
        count = str(len(shown["contributors"]))
        row = (str(shown["number"]), str(shown["round"]), count, loss, own)
        state = states[record.version.number]
        rows.append((*row, shown["adapter"][:12], state, shown["note"]))
    columns = ("version", "round", "contributors", "loss", "evaluation", "adapter", "state", "note")
    print_table(columns, rows)


@app.command()
def show(
    number: Annotated[int | None, typer.Argument(help="The newest if left out.")] = None,
    folder: InFolder = Path(),
) -> None:
    """One version, as JSON."""
    from nomoat.lora.export.order import ExportTarget
    from nomoat.server.community.opened import canaries_of

    community = opened(folder)
    record = community.versions.get(number)
    number = record.version.number
    measured = given({"canaries": canaries_of(community, number)})
    print_json({**_row(record), "state": _states(community)[number], **measured})
    which = f"--version {record.version.number} --dir {folder} --to {'|'.join(ExportTarget)}"
    say(f"to take it elsewhere: nomoat adapter export NEW_FOLDER {which}")
    say(f"to talk to the newest: nomoat chat --adapter {folder} --compare")
    say(f"to serve it to other programs: nomoat serve --adapter {folder}")


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
def release(
    number: Annotated[int, typer.Argument(help="The version to give out.")],
    folder: InFolder = Path(),
    reason: Annotated[str, typer.Option(help="Kept with it.")] = "",
) -> None:
    """Say that a version may be given out; what was held is held no more."""
    from nomoat.server.release.releasing import ReleaseState

    _order(folder, number, ReleaseState.RELEASED, reason)


@app.command()
def hold(
    number: Annotated[int, typer.Argument(help="The version that is not to be given out.")],
    folder: InFolder = Path(),
    reason: Annotated[str, typer.Option(help="Kept with it.")] = "",
) -> None:
    """Give a version out no more; rounds go on from the newest all the same."""
    from nomoat.server.release.releasing import ReleaseState

    _order(folder, number, ReleaseState.HELD, reason)
    say(f"to go on from an older one: nomoat adapter rollback N --dir {folder}")


def _order(folder: Path, number: int, state: ReleaseState, reason: str) -> None:
    from nomoat.server.release.releasing import newest_released, order

    community, now = opened(folder), int(time.time())
    stands = order(community, number, state, reason, now)
    given_out = newest_released(community, now).version.number
    typer.echo(f"version {number} is {stands.value}; version {given_out} is given out")


def _states(community: OpenCommunity) -> dict[int, str]:
    """Version → candidate, released or held."""
    from nomoat.server.release.releasing import states

    return {number: state.value for number, state in states(community, int(time.time())).items()}


@app.command()
def rollback(
    number: Annotated[int, typer.Argument(help="The version to go back to.")],
    folder: InFolder = Path(),
    reason: Annotated[str, typer.Option(help="Signed with it; everybody can read it.")] = "",
) -> None:
    """Go on from an older version: a new one is added, none is rewritten.

    A community that is up goes back when no round is under way; one that began before is not taken.
    """
    from nomoat.server.overview import up_process
    from nomoat.server.release.rolling_back import ask, go_back

    community, now = opened(folder), int(time.time())
    if up_process(folder) is not None:
        ask(community, number, reason, now)
        typer.echo(f"the community goes back to version {number} when no round is under way")
        say(f"a round that is under way is not taken; see: nomoat adapter list --dir {folder}")
        return
    with community.alone(f"{folder} is being opened; try again"):
        record = go_back(community, number, reason, now)
    typer.echo(f"version {record.version.number} is version {number} again")
    say("nomoat up goes on from it")


@app.command()
def prune(
    keep: Annotated[int, typer.Option(help="Keep the newest so many.")],
    every: Annotated[int, typer.Option(help="Keep every so-manieth, too; 0: none.")] = 0,
    folder: InFolder = Path(),
) -> None:
    """Delete files of old versions; records stay, and version 0, the newest, the one given out."""
    from nomoat.server.pruning import PruningRule
    from nomoat.server.pruning import prune as delete
    from nomoat.server.release.releasing import newest_released

    community, now = opened(folder), int(time.time())
    rule = PruningRule(keep, every, newest_released(community, now).version.number)
    gone = delete(community.versions, rule, now)
    typer.echo(f"{gone.files} files deleted, {gone.bytes / 1e6:.1f} MB")
    say("their records stay in the chain: nomoat adapter verify")


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
        "noise": None if version.noise is None else asdict(version.noise),
        "at": version.at,
        "signature": record.signature.hex(),
    }
