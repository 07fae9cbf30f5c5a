"""`nomoat volunteers`: those who take part are listed, approved, held and banned."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nomoat.server.cli.evidence import evidence
from nomoat.server.cli.options import (
    AsJson,
    DirGroup,
    InFolder,
    Same,
    given,
    opened,
    print_json,
    print_table,
    say,
)

if TYPE_CHECKING:
    from nomoat.aggregation.protocol.roster import Event

app = typer.Typer(
    cls=DirGroup,
    help="Who takes part: list, approve, hold, ban, remove.",
    invoke_without_command=True,
)


Reason = Annotated[str, typer.Option(help="They see it.")]


@app.callback()
def volunteers(ctx: typer.Context, folder: InFolder = Path(), as_json: AsJson = False) -> None:
    """List and order those who take part."""
    ctx.obj = folder
    if ctx.invoked_subcommand is None:
        _list(folder, as_json)


@app.command("list")
def list_volunteers(ctx: typer.Context, folder: Same = None, as_json: AsJson = False) -> None:
    """Everyone who ever enrolled, and where they stand."""
    _list(folder or ctx.obj, as_json)


@app.command()
def approve(ctx: typer.Context, name: str, folder: Same = None) -> None:
    """Let a pending or held volunteer take part; a banned one is held first."""
    from nomoat.aggregation.protocol.roster import Event

    if _order(folder or ctx.obj, name, Event.RELEASE, "") == "held":
        say(f"{name} was banned, and is held now: approve it once more to let it take part")


@app.command()
def hold(ctx: typer.Context, name: str, reason: Reason = "", folder: Same = None) -> None:
    """Leave a volunteer out until it is approved again."""
    from nomoat.aggregation.protocol.roster import Event

    _order(folder or ctx.obj, name, Event.HOLD, reason)


@app.command()
def ban(
    ctx: typer.Context,
    name: str,
    reason: Reason = "",
    invitation: Annotated[
        bool, typer.Option("--invitation", help="The invitation it came by is revoked, too.")
    ] = False,
    folder: Same = None,
) -> None:
    """Take no message of this volunteer any more, from its next one on."""
    from nomoat.aggregation.protocol.roster import Event

    _order(folder or ctx.obj, name, Event.BAN, reason)
    if invitation:
        revoked, others = opened(folder or ctx.obj).registrar.revoke_of(name)
        came = f"; others came by it: {', '.join(others)}" if others else ""
        typer.echo(f"invitation {revoked.identifier.hex()} is revoked{came}")


app.command()(evidence)


@app.command()
def export(ctx: typer.Context, name: str, folder: Same = None) -> None:
    """Write all that is held of a volunteer to stdout, as JSON: for whoever asks for it."""
    from nomoat.server.erasure import held_of

    print_json(held_of(opened(folder or ctx.obj).registrar, name))


@app.command()
def erase(
    ctx: typer.Context,
    name: str,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    folder: Same = None,
) -> None:
    """Erase what can be of a volunteer that asked for it: receipts, its name in rounds' records."""
    from nomoat.aggregation.errors import NomoatError, UsageError
    from nomoat.server.erasure import erase as erased
    from nomoat.server.rounds.records import nobodys_name
    from nomoat.server.state_file import FILE, forget

    registrar = opened(folder or ctx.obj).registrar
    known = registrar.database.applicant(name)
    if known is None:
        raise UsageError(f"no volunteer is called {name}; see: nomoat volunteers list")
    question = f"Erase {name}? It leaves, and its receipts cannot be brought back."
    if not yes and not typer.confirm(question, default=False, err=True):
        raise NomoatError("nothing was changed")
    found = erased(registrar, known.binding.identity, nobodys_name(), int(time.time()))
    forget((folder or ctx.obj) / FILE, name)
    typer.echo(f"erased {found.receipts} receipts, and its name in {found.rounds} rounds' records")


@app.command()
def remove(ctx: typer.Context, name: str, reason: Reason = "", folder: Same = None) -> None:
    """Take a volunteer as one that left: its machine is lost, say. An invitation lets it return."""
    from nomoat.aggregation.protocol.roster import Event

    _order(folder or ctx.obj, name, Event.LEAVE, reason)


def _order(folder: Path, name: str, event: Event, reason: str) -> str:
    """Give an order, and tell the standing that it led to."""
    standing = opened(folder).registrar.order(name, event, reason, int(time.time()))
    typer.echo(f"{name} is {standing.value}")
    return standing.value


def _list(folder: Path, as_json: bool) -> None:
    rows = _rows(folder)
    if as_json:
        print_json(rows)
        return
    print_table(
        ("name", "standing", "protocol", "reason", "key"),
        [
            (
                row["name"],
                row["standing"],
                row["protocol"],
                _why(row),
                row["key"][:19],
            )
            for row in rows
        ],
    )
    for row in rows:
        if "suspicion" in row:
            say(f"{row['name']} {row['suspicion']}")


def _rows(folder: Path) -> list[dict[str, Any]]:
    from nomoat.aggregation.protocol.community.spoken import in_words
    from nomoat.aggregation.protocol.enrolment import fingerprint
    from nomoat.server.conduct.ledger import ConductLedger
    from nomoat.server.conduct.suspicions import suspicions
    from nomoat.server.rounds.records import RoundRecord
    from nomoat.server.rounds.suspicion import claims
    from nomoat.server.state_file import FILE, said_by

    registrar = opened(folder).registrar
    spoken = said_by(folder / FILE, "spoken")
    strikes = ConductLedger(registrar).counting()
    suspected = suspicions(registrar.database)
    ended = (RoundRecord.from_json(json.loads(text)) for text in registrar.database.rounds())
    odd = claims.counted(record.misfits for record in ended if record.summed)
    return [
        {
            "name": applicant.binding.name,
            "standing": applicant.standing.value,
            "reason": applicant.reason,
            "key": fingerprint(applicant.binding.identity),
            "protocol": in_words(spoken.get(applicant.binding.name)),
            "misfits": odd[applicant.binding.name],
            "strikes": [str(s) for s in strikes if s.volunteer == applicant.binding.name],
            **given({"suspicion": suspected.get(applicant.binding.name)}),
        }
        for applicant in registrar.database.applicants()
    ]


def _why(row: dict[str, Any]) -> str:
    """The reason of its standing, or what it did last; and what its losses are worth."""
    from nomoat.server.rounds.suspicion import claims

    did = row["reason"] or "; ".join(row["strikes"][-1:])
    return "; ".join(filter(None, (did, claims.in_words(row["misfits"]))))
