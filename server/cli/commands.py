"""The coordinator's commands: init, up, invite, volunteers, adapter."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nomoat.server.cli.setting_options import options_of, settings_command, takes_settings

if TYPE_CHECKING:
    import click

    from nomoat.aggregation.protocol.lineage import SignedVersion
    from nomoat.aggregation.protocol.roster import Event
    from nomoat.server.community.opened import OpenCommunity

app = typer.Typer(add_completion=False)
volunteers = typer.Typer(
    help="Who takes part: list, approve, hold, release, ban.", invoke_without_command=True
)
adapters = typer.Typer(help="Versions of the community adapter.", no_args_is_help=True)
app.add_typer(volunteers, name="volunteers")
app.add_typer(adapters, name="adapter")

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The community's folder.")]
Where = Annotated[Path, typer.Option("--dir", metavar="DIR", help="The community's folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]


def init_options() -> list[click.Parameter]:
    """One option for each setting of rounds, adapter and training."""
    from nomoat.server.community.settings import CommunityRoundSettings
    from nomoat.server.rounds import settings

    return [
        *options_of(CommunityRoundSettings, "Rounds", leave_out=("seed",)),
        *options_of(settings.RoundSettings, "Rounds", leave_out=("min_reports",)),
        *options_of(settings.ServerOptimizerSettings, "Server optimiser"),
        *options_of(settings.AdapterSettings, "Adapter"),
        *options_of(settings.TrainingSettings, "What a volunteer does in a round"),
    ]


@app.command(cls=settings_command(init_options))
@takes_settings
def init(  # noqa: PLR0913, PLR0917 - a command's options are its parameters
    folder: Folder,
    name: Annotated[str, typer.Option(help="The community's name.")],
    base: Annotated[str, typer.Option(help="Base model: a Hugging Face folder or hub id.")],
    about: Annotated[str, typer.Option(help="A line for those who are invited.")] = "",
    license_: Annotated[str, typer.Option("--license", help="The base model's licence.")] = "",
    evaluation: Annotated[
        Path | None, typer.Option("--eval", help="Rows kept for measuring versions.")
    ] = None,
    address: Annotated[
        str, typer.Option(help="HOST:PORT as volunteers reach it.")
    ] = "localhost:8443",
    approve: Annotated[
        bool, typer.Option("--approve", help="Volunteers wait for your approval.")
    ] = False,
    seed: Annotated[
        str | None,
        typer.Option(help="A number, as in simulate: the same federation again."),
    ] = None,
    **given: Any,
) -> None:
    """Make a community's folder: keys, certificate, settings, first adapter."""
    import datetime
    import os

    from pydantic import ValidationError

    from nomoat.aggregation.errors import UsageError
    from nomoat.aggregation.protocol.enrolment import fingerprint
    from nomoat.server.community.certificates import split_address
    from nomoat.server.community.creation import NewCommunity, Tables, make
    from nomoat.server.community.membership_rules import Admission
    from nomoat.server.community.settings import (
        CommunityRoundSettings,
        CommunitySettings,
        ServerSettings,
    )
    from nomoat.server.rounds.settings import AdapterSettings, TrainingSettings
    from nomoat.storage.settings import first_error

    _, port = split_address(address)
    admission = Admission.APPROVE if approve else Admission.OPEN
    adapter, rounds, training = (
        {key: value for key, value in given.items() if key in kind.model_fields}
        for kind in (AdapterSettings, CommunityRoundSettings, TrainingSettings)
    )
    try:
        community = CommunitySettings(name=name, about=about, admission=admission)
        server = ServerSettings(port=port, address=address)
        tables = Tables(adapter, rounds, training)
        wanted = NewCommunity(community, base, license_, tables, server, evaluation, seed)
        made = make(folder, wanted, datetime.datetime.now(datetime.UTC), os.urandom, _say)
    except ValidationError as problem:
        raise UsageError(first_error(problem)) from None
    _say(f"{name}: {fingerprint(made.key().public)}")
    if parts := made.load().base.left_out:
        _say(parts)
    _say(f"settings: {made.settings}")
    _say(f"next: nomoat up {folder}    and    nomoat invite {folder}")


@app.command()
def up(  # noqa: PLR0913, PLR0917
    folder: Folder,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Run this many rounds in all.")] = None,
    until_done: Annotated[
        bool, typer.Option("--until-done", help="End with the last round; else stay reachable.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One object per round.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Nothing but errors.")] = False,
) -> None:
    """Open the community's port and run its rounds until all are done (Ctrl-C ends it)."""
    import contextlib
    import logging
    import os
    import signal
    import threading

    os.environ.setdefault("FLWR_HOME", str((folder / "flower").resolve()))
    # Read when numpy is imported: BLAS threads would spin against those of the sum.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from nomoat.server.community.opened import OpenCommunity
    from nomoat.server.console import ConsoleLines
    from nomoat.server.heap import return_freed_memory
    from nomoat.server.host import hosting

    return_freed_memory()  # many threads, each with adapters in passing
    logging.basicConfig(
        level=logging.ERROR if quiet else logging.WARNING,
        format="%(asctime)s %(levelname)s %(message)s",
        stream=sys.stderr,
    )
    flags: dict[str, Any] = {
        "server": _given({"host": host, "port": port}),
        "rounds": _given({"max_rounds": rounds}),
    }
    office = OpenCommunity.open(folder, **{key: value for key, value in flags.items() if value})
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with (
        contextlib.closing(office.registrar.store),
        hosting(office, ConsoleLines(as_json, quiet), stop) as hosted,
    ):
        if not quiet:
            where = f"{office.settings.server.host}:{hosted.port}"
            _say(f"{office.settings.community.name} is up on {where}")
        checkpoint = hosted.run()
        if checkpoint is not None and not until_done:
            if not quiet:
                _say("all rounds are done; the port stays open (Ctrl-C ends it)")
            hosted.stay()
    if not quiet:
        _say("all rounds are done" if checkpoint is not None else "stopped; nothing is lost")


@app.command()
def invite(  # noqa: PLR0913, PLR0917
    folder: Folder,
    uses: Annotated[int, typer.Option(min=1, help="How many may join with it.")] = 1,
    expires: Annotated[str, typer.Option(help="90m, 36h, 7d, 2w.")] = "7d",
    address: Annotated[
        str | None, typer.Option(help="HOST:PORT, if not the one of community.toml.")
    ] = None,
    svg: Annotated[Path | None, typer.Option(help="Write the QR code to this file.")] = None,
    as_json: AsJson = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="The link alone, no QR code.")] = False,
) -> None:
    """Print an invitation: a nomoat:// link (stdout) and its QR code."""
    import os
    import time

    from nomoat.aggregation.errors import UsageError
    from nomoat.aggregation.protocol.invitation import Claims
    from nomoat.server.community import certificates
    from nomoat.server.community.invites import parse_duration, qr_svg, qr_text
    from nomoat.server.community.opened import OpenCommunity

    office = OpenCommunity.open(folder)
    where = address or office.settings.server.address
    host, _ = certificates.split_address(where)
    certificate = office.folder.server_certificate.read_bytes()
    if host not in certificates.hosts_of(certificate):
        raise UsageError(
            f"the server certificate does not name {host}; set server.address in "
            f"{office.folder.settings} and start nomoat up once"
        )
    claims = Claims(
        where,
        certificates.fingerprint(office.folder.authority_certificate.read_bytes()),
        office.registrar.key.public,
        os.urandom(16),
        uses,
        int(time.time()) + parse_duration(expires),
    )
    invitation = office.registrar.invite(claims)
    if svg is not None:
        svg.write_bytes(qr_svg(invitation))
    if as_json:
        shown = {"link": invitation.link(), "uses": uses, "expires": claims.expires}
        _print_json({**shown, "address": where, "id": claims.identifier.hex()})
        return
    typer.echo(invitation.link())
    if not quiet:
        sys.stderr.write(qr_text(invitation))


@volunteers.callback()
def group(ctx: typer.Context, folder: Folder, as_json: AsJson = False) -> None:
    """Who takes part."""
    ctx.obj = folder
    if ctx.invoked_subcommand is None:
        _list_volunteers(folder, as_json)


@volunteers.command("list")
def list_volunteers(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Everyone who ever enrolled, and where they stand."""
    _list_volunteers(ctx.obj, as_json)


@volunteers.command()
def approve(ctx: typer.Context, name: str) -> None:
    """Let a pending, held or returning volunteer take part."""
    from nomoat.aggregation.protocol.roster import Event

    _order(ctx.obj, name, Event.RELEASE, "")


@volunteers.command()
def hold(
    ctx: typer.Context, name: str, reason: Annotated[str, typer.Option(help="They see it.")] = ""
) -> None:
    """Leave a volunteer out until it is approved again."""
    from nomoat.aggregation.protocol.roster import Event

    _order(ctx.obj, name, Event.HOLD, reason)


@volunteers.command()
def ban(
    ctx: typer.Context, name: str, reason: Annotated[str, typer.Option(help="They see it.")] = ""
) -> None:
    """Take no message of this volunteer any more, from its next one on."""
    from nomoat.aggregation.protocol.roster import Event

    _order(ctx.obj, name, Event.BAN, reason)


@adapters.command("list")
def list_versions(folder: Where = Path(), as_json: AsJson = False) -> None:
    """All versions: round, contributors, held-out loss."""
    from rich.console import Console
    from rich.table import Table

    records = _office(folder).registry.store.versions()
    if as_json:
        _print_json([_version(record) for record in records])
        return
    table = Table("version", "round", "contributors", "loss", "evaluation", "adapter", "note")
    for record in records:
        shown = _version(record)
        losses = (shown["loss"], shown["evaluation"])
        loss, own = ("" if value is None else f"{value:.4f}" for value in losses)
        count = str(len(shown["contributors"]))
        row = (str(shown["number"]), str(shown["round"]), count, loss, own)
        table.add_row(*row, shown["adapter"][:12], shown["note"])
    Console().print(table)


@adapters.command()
def show(
    number: Annotated[int | None, typer.Argument(help="The newest if left out.")] = None,
    folder: Where = Path(),
) -> None:
    """One version, as JSON."""
    _print_json(_version(_office(folder).registry.get(number)))


@adapters.command()
def verify(folder: Where = Path(), as_json: AsJson = False) -> None:
    """Check every version: chain, signatures, files."""
    count = _office(folder).registry.verify()
    if as_json:
        _print_json({"versions": count, "ok": True})
    else:
        typer.echo(f"{count} versions: chain, signatures and files are whole")


@adapters.command()
def export(
    to: Annotated[Path, typer.Argument(help="A new folder.")],
    number: Annotated[int | None, typer.Option("--version", help="The newest if left out.")] = None,
    folder: Where = Path(),
) -> None:
    """Write a version as a PEFT adapter folder."""
    from nomoat.aggregation.errors import UsageError
    from nomoat.lora.model.adapter_folder import save_folder
    from nomoat.server.community.opened import card

    office = _office(folder)
    record = office.registry.get(number)
    if to.exists():
        raise UsageError(f"{to} exists already; choose another folder")
    base = office.settings.base
    adapter = office.registry.load(record)
    save_folder(adapter, base.model, to, card(office, record), bytes.fromhex(base.hash))
    typer.echo(str(to))


@adapters.command()
def rollback(
    number: Annotated[int, typer.Argument(help="The version to go back to.")],
    folder: Where = Path(),
) -> None:
    """Go on from an older version: a new one is added, none is rewritten."""
    import time

    record = _office(folder).registry.rollback(number, int(time.time()))
    typer.echo(f"version {record.version.number} is version {number} again")
    _say("a coordinator that is up goes on from it after its next start")


def _list_volunteers(folder: Path, as_json: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    from nomoat.aggregation.protocol.enrolment import fingerprint

    office = _office(folder)
    rows = [
        {
            "name": a.binding.name,
            "standing": a.standing.value,
            "reason": a.reason,
            "key": fingerprint(a.binding.identity),
        }
        for a in office.registrar.store.applicants()
    ]
    if as_json:
        _print_json(rows)
        return
    table = Table("name", "standing", "reason", "key")
    for row in rows:
        table.add_row(row["name"], row["standing"], row["reason"], row["key"][:19])
    Console().print(table)


def _order(folder: Path, name: str, event: Event, reason: str) -> None:
    import time

    standing = _office(folder).registrar.order(name, event, reason, int(time.time()))
    typer.echo(f"{name} is {standing.value}")


def _office(folder: Path) -> OpenCommunity:
    from nomoat.server.community.opened import OpenCommunity

    return OpenCommunity.open(folder)


def _version(record: SignedVersion) -> dict[str, Any]:
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


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if value is not None}


def _print_json(value: object) -> None:
    sys.stdout.write(json.dumps(value) + "\n")


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
