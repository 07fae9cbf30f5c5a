"""The volunteer's commands: join, run, status, pause, resume, finish, leave."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from nomoat.aggregation.protocol.enrolment import CommunityInfo
    from nomoat.client.data.split import Split
    from nomoat.client.home import CommunityFolder, Home
    from nomoat.client.machine.readings import Orders
    from nomoat.client.settings import VolunteerSettings
    from nomoat.client.training.memory_fit import Bits

app = typer.Typer(add_completion=False)

Which = Annotated[
    str | None, typer.Option("--community", help="Name or id, if several were joined.")
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]
Detach = Annotated[bool, typer.Option("--detach", help="Go on in the background.")]


@app.command()
def join(  # noqa: PLR0913, PLR0917 - a command's options are its parameters
    link: Annotated[str, typer.Argument(help="The invitation: nomoat://join/…")],
    data: Annotated[Path, typer.Option(help="Your data: a file or folder; it stays here.")],
    base: Annotated[
        str | None, typer.Option(help="Where the base model is here: a folder or hub id.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--as", help="Your name in the community (default: yours here).")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
    heldout: Annotated[float, typer.Option(help="Share of rows kept for measuring.")] = 0.1,
    heldout_data: Annotated[
        Path | None, typer.Option(help="Rows to measure with, instead of a share of yours.")
    ] = None,
    rank: Annotated[
        str | None, typer.Option(help="Modules trained here at most, or auto: what fits.")
    ] = None,
    bits: Annotated[
        Literal["auto", "4", "8", "16"],
        typer.Option(help="Bits of the frozen base; auto: what fits."),
    ] = "auto",
    yes: Annotated[
        bool, typer.Option("--yes", help="Accept the sheet without being asked.")
    ] = False,
    only_enrol: Annotated[bool, typer.Option("--enrol-only", help="Join, train later.")] = False,
    detach: Detach = False,
) -> None:
    """Join a community: read the sheet, accept it, and train whenever a round asks."""
    import os
    import time

    from nomoat.aggregation.errors import Refused
    from nomoat.aggregation.protocol.enrolment import Standing
    from nomoat.aggregation.protocol.invitation import from_link
    from nomoat.client.connection import coordinator_api
    from nomoat.client.data import secrets_allowlist
    from nomoat.client.data.split import prepare
    from nomoat.client.home import Home
    from nomoat.client.identity.keys import identity
    from nomoat.client.machine.free_memory import free_memory
    from nomoat.client.machine.limits_settings import MachineSettings
    from nomoat.client.membership.consent_sheet import sheet
    from nomoat.client.membership.joining import check_base, preview
    from nomoat.client.membership.joining import join as enrol
    from nomoat.client.settings import VolunteerSettings
    from nomoat.client.training import community_fit
    from nomoat.client.training.memory_fit import check_bits

    invitation = from_link(link)
    info = coordinator_api.look(
        coordinator_api.endpoint_of(invitation), invitation.claims.community, int(time.time())
    )
    home = Home.find()
    folder = home.folder(info.public)
    where = _where(base or info.base_model)
    settings = VolunteerSettings(
        address=invitation.claims.address,
        name=name or _own_name(),
        data=data.resolve(),
        base=where,
        device=device,
        heldout=heldout,
        heldout_data=heldout_data and heldout_data.resolve(),
        rank=_rank(rank),
    )
    check_base(where, info.base_hash, info.name)
    machine = MachineSettings(base_bits=_bits(bits, info, where, settings))
    check_bits(machine)
    settings = settings.model_copy(update={"machine": machine})
    most = community_fit.rank_of(settings, info)
    community_fit.check_rank(info, where, most)
    split = prepare(
        settings.data,
        folder.split,
        heldout,
        secrets_allowlist.load(home.root),
        heldout_data=settings.heldout_data,
    )
    fit = community_fit.line(info, where, free_memory(device), machine.base_bits, most)
    sys.stderr.write(sheet(info, settings, split, most, fit) + "\n")
    _show_secrets(folder, split)
    if not yes:
        sys.stderr.write(preview(settings, info.seq_len))
    if not yes and not typer.confirm("Take part?", default=False, err=True):
        raise Refused("not joined: the sheet was not accepted")
    identity(home.identity, os.urandom)
    folder.save_info(info)
    standing, reason = enrol(home, folder, settings, invitation.token(), info.ca)
    if standing in (Standing.BANNED, Standing.LEFT):
        raise Refused(f"{info.name} has you as {standing.value}: {reason or 'no reason given'}")
    folder.save(settings)
    waits = " (waits for approval)" if standing is Standing.PENDING else ""
    _say(f"joined {info.name} as {settings.name}{waits}")
    if not only_enrol:
        _run(home, [folder], folder.root.name, detach)


def _bits(text: str, info: CommunityInfo, base: str, wish: VolunteerSettings) -> Bits | None:
    from nomoat.client.machine.free_memory import free_memory
    from nomoat.client.training import community_fit

    if text == "auto":
        return community_fit.bits(
            info, base, free_memory(wish.device), 1 if wish.rank == "auto" else wish.rank
        )
    known: dict[str, Bits] = {"4": 4, "8": 8, "16": 16}
    return known[text]


def _rank(text: str | None) -> int | Literal["auto"]:
    from nomoat.aggregation.errors import UsageError
    from nomoat.aggregation.protocol.messages import MAX_RANK

    if text is None:
        return MAX_RANK
    if text == "auto":
        return "auto"
    if not text.isdecimal() or not 1 <= int(text) <= MAX_RANK:
        raise UsageError(f"--rank {text}: give a number from 1 to {MAX_RANK}, or auto")
    return int(text)


@app.command()
def run(community: Which = None, detach: Detach = False) -> None:
    """Take part again in every community this machine has joined, or in one."""
    from nomoat.client.home import Home

    home = Home.find()
    _run(home, home.chosen(community), community, detach)


@app.command()
def status(community: Which = None, as_json: AsJson = False) -> None:
    """What this volunteer is doing, and if it is not training, why; a line of JSON a community."""
    from nomoat.client.home import Home

    for number, folder in enumerate(Home.find().chosen(community)):
        if number and not as_json:
            typer.echo()
        _status(folder, as_json)


def _status(folder: CommunityFolder, as_json: bool) -> None:
    from dataclasses import asdict
    from datetime import UTC, datetime

    from nomoat.client.machine import owner_orders
    from nomoat.client.volunteer.status import paused, read_status, running

    info, state, orders = folder.info(), read_status(folder), owner_orders.read(folder.root)
    alive = running(folder)
    doing, why = (
        (state.doing, state.why) if state and alive else ("stopped", "nomoat run starts it")
    )
    if state and not alive:
        killed = "killed, or the machine went down"
        again = "; nomoat run starts it again"
        doing, why = {
            "refused": ("refused", state.why),
            "stopped": ("stopped", state.why + again),
        }.get(state.doing, ("stopped", killed + again))
    if paused(orders, datetime.now(UTC)) and alive and doing != "working":
        doing, why = "paused", _until(orders)
    shown = {
        "community": info.name,
        "id": folder.root.name,
        "running": alive,
        "doing": doing,
        "why": why,
        "finishing": orders.finish and alive,
        "protection": _protection(folder),
        **({k: v for k, v in asdict(state).items() if k not in ("doing", "why")} if state else {}),
    }
    if as_json:
        sys.stdout.write(json.dumps(shown) + "\n")
        return
    since = f", since {_clock(state.since)}" if state else ""
    then = "; stops after this round, as you asked" if orders.finish and alive else ""
    typer.echo(f"{doing}: {why}{since}{then}")
    typer.echo(f"community {info.name} ({folder.root.name[:8]})")
    typer.echo(f"protection {shown['protection']}")
    if state:
        version = "none yet" if state.version is None else str(state.version)
        typer.echo(
            f"rounds trained {state.rounds}, too late {state.late}, "
            f"sent {state.sent_bytes / 1e6:.1f} MB, newest adapter version {version}"
        )
        if state.loss is not None:
            own = "" if state.own_loss is None else f", {state.own_loss:.4f} with your own part"
            typer.echo(f"held-out loss on your rows {state.loss:.4f}{own}")


def _protection(folder: CommunityFolder) -> str:
    """How updates are hidden, with the last session's real size; a broken log is said to be one."""
    from nomoat.aggregation.errors import NomoatError
    from nomoat.client.membership.consent_sheet import protection, protection_now
    from nomoat.client.sent.log_file import SentLog

    info = folder.info()
    try:
        return protection_now(info, SentLog(folder.root).check().entries)
    except NomoatError as problem:
        return f"{protection(info)}; {problem}"


@app.command()
def pause(
    for_: Annotated[
        str | None, typer.Option("--for", help="90m, 2h, 1d; until resume if left out.")
    ] = None,
    community: Which = None,
) -> None:
    """Stop training and give the memory back until `resume`, or for a while; nothing is lost."""
    import time
    from datetime import UTC

    from nomoat.client.home import Home
    from nomoat.client.machine import owner_orders

    span = None if for_ is None else owner_orders.span_s(for_)
    for folder in Home.find().chosen(community):
        orders = owner_orders.pause(owner_orders.read(folder.root), time.time(), span, UTC)
        owner_orders.write(folder.root, orders)
        _say_orders(folder, orders)


@app.command()
def resume(community: Which = None) -> None:
    """Take part again after a pause."""
    from nomoat.client.home import Home
    from nomoat.client.machine import owner_orders

    for folder in Home.find().chosen(community):
        orders = owner_orders.resume(owner_orders.read(folder.root))
        owner_orders.write(folder.root, orders)
        _say_orders(folder, orders)


@app.command()
def finish(community: Which = None) -> None:
    """Finish what is being done, then stop."""
    from nomoat.client.home import Home
    from nomoat.client.machine import owner_orders
    from nomoat.client.volunteer.status import running

    for folder in Home.find().chosen(community):
        if not running(folder):
            typer.echo(f"{folder.name()}: not running")
            continue
        orders = owner_orders.finish(owner_orders.read(folder.root))
        owner_orders.write(folder.root, orders)
        _say_orders(folder, orders)


@app.command()
def leave(
    community: Which = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Leave a community: its coordinator is told, and everything of it here is deleted."""
    import shutil
    import time

    from nomoat.aggregation.errors import NomoatError, UsageError
    from nomoat.client.connection import coordinator_api
    from nomoat.client.connection.coordinator_api import CoordinatorClient
    from nomoat.client.connection.https import Endpoint
    from nomoat.client.home import Home
    from nomoat.client.identity.keys import load_identity
    from nomoat.client.volunteer.status import running

    home = Home.find()
    folder = home.choose(community)
    info = folder.info()
    if running(folder):
        raise UsageError(f"{info.name} is running here; nomoat finish first")
    if not yes and not typer.confirm(f"Leave {info.name}?", default=False, err=True):
        raise NomoatError("still a member: nothing was changed")
    endpoint = Endpoint.at(folder.load().address, ca=info.ca)
    try:
        coordinator_api.leave(
            CoordinatorClient(endpoint, load_identity(home.identity), info.public), int(time.time())
        )
    except NomoatError as problem:
        _say(f"{problem}; left here all the same")
    shutil.rmtree(folder.root)
    typer.echo(f"left {info.name}")


def _run(home: Home, folders: Sequence[CommunityFolder], named: str | None, detach: bool) -> None:
    import os
    import signal
    import threading
    from dataclasses import replace

    from nomoat.client.machine import owner_orders

    if detach:
        _detach(folders[0].root if named else home.root, named)
        return
    os.environ.setdefault("FLWR_HOME", str(home.root / "flower"))
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # as the driver's own library counts
    from nomoat.client.volunteer.runner import keep_logs, take_part

    keep_logs(folders)
    for folder in folders:
        orders = owner_orders.read(folder.root)
        if orders.finish:  # it was obeyed: to run again is to want more
            owner_orders.write(folder.root, replace(orders, finish=False))
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    names = ", ".join(folder.name() for folder in folders)
    _say(f"taking part in {names}; Ctrl-C ends it")
    take_part(home, folders, stop)
    _say("stopped; what was finished is kept")


def _show_secrets(folder: CommunityFolder, split: Split) -> None:
    """Rows that look secret and are left out, and how to keep them."""
    from nomoat.client.data.split import FINDINGS

    if split.secret_rows:
        sys.stderr.write((folder.split / FINDINGS).read_text())


def _detach(folder: Path, named: str | None) -> None:
    """Start `nomoat run` in a session of its own."""
    import subprocess

    only = () if named is None else ("--community", named)
    with (folder / "volunteer.out").open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "nomoat", "run", *only],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    _say(f"in the background as process {process.pid}; see: nomoat status, nomoat logs")


def _own_name() -> str:
    """This account's name, as far as it may be one here."""
    import getpass
    import re

    found = re.sub(r"[^a-z0-9._-]+", "-", getpass.getuser().lower()).strip("._-")
    return found[:40] or "volunteer"


def _where(base: str) -> str:
    """A folder by its whole path, a hub id as it is."""
    path = Path(base).expanduser()
    return str(path.resolve()) if path.is_dir() else base


def _until(orders: Orders) -> str:
    if orders.paused_until is None:
        return "until nomoat resume"
    return f"until {orders.paused_until.astimezone():%Y-%m-%d %H:%M}"


def _say_orders(folder: CommunityFolder, orders: Orders) -> None:
    from datetime import datetime

    from nomoat.client.cli.status_page import render_orders

    typer.echo(f"{folder.name()}: {render_orders(orders, datetime.now().astimezone())}")


def _clock(at_s: float) -> str:
    from datetime import datetime

    at, now = datetime.fromtimestamp(at_s), datetime.now()
    return f"{at:%H:%M}" if at.date() == now.date() else f"{at:%Y-%m-%d %H:%M}"


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
