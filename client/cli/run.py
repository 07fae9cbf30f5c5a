"""`nomoat run`: takes part, in the foreground or in a session of its own."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from nomoat.client.cli import options
from nomoat.client.cli.output import say

if TYPE_CHECKING:
    from nomoat.client.home import CommunityFolder, Home

app = typer.Typer(add_completion=False)

OUTPUT = "volunteer.out"
STARTS_WITHIN_S = 30.0
LOOK_S = 0.2


@app.command()
def run(community: options.Which = None, detach: options.Detach = False) -> None:
    """Take part again in every community this machine has joined, or in one."""
    from nomoat.client.home import Home

    home = Home.opened()
    start(home, home.chosen(community), community, detach)


def start(
    home: Home,
    folders: Sequence[CommunityFolder],
    named: str | None,
    detach: bool,
    web: bool = False,
) -> None:
    """Take part until the owner ends it; `named`: the one community that was asked for.

    web: with the owner's page beside, where somebody sees it.
    """
    import contextlib
    import os
    import signal
    import threading

    from nomoat.aggregation.errors import UsageError
    from nomoat.client.volunteer.status import running

    names = ", ".join(folder.name() for folder in folders)
    if all(map(running, folders)):
        raise UsageError(f"{names}: running on this machine already; see: nomoat status")
    if detach:
        _detach(folders, folders[0].root if named else home.root, named)
        return
    os.environ.setdefault("FLWR_HOME", str(home.root / "flower"))
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # as the driver's own library counts
    from nomoat.client.volunteer.runner import keep_logs, take_part
    from nomoat.client.volunteer.telling.page_beside import page_beside, somebody_looks

    web = web and somebody_looks(sys.stdout.isatty() and sys.stderr.isatty(), os.environ)
    keep_logs(folders)
    _want_more(folders)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    say(f"taking part in {names}; Ctrl-C ends it (in a browser: nomoat status --web)")
    with page_beside(home.root, folders[0].root.name) if web else contextlib.nullcontext():
        take_part(home, folders, stop, _timed)
    say("stopped; what was finished is kept")


def _want_more(folders: Sequence[CommunityFolder]) -> None:
    """Take back an order to finish: it was obeyed, and to run again is to want more."""
    from dataclasses import replace

    from nomoat.client.machine import owner_orders

    for folder in folders:
        orders = owner_orders.read(folder.root)
        if orders.finish:
            owner_orders.write(folder.root, replace(orders, finish=False))


def _timed(line: str) -> None:
    """Tell an event at the time it happens."""
    import time

    say(f"{time.strftime('%H:%M:%S')} {line}")


def _detach(folders: Sequence[CommunityFolder], out: Path, named: str | None) -> None:
    """Start `nomoat run` in a session of its own, and wait until it has begun, or has failed."""
    import time

    from nomoat import background
    from nomoat.aggregation.errors import NomoatError
    from nomoat.client.volunteer.status import running

    only = () if named is None else ("--community", named)
    process = background.start(("run", *only), out / OUTPUT)
    until = time.monotonic() + STARTS_WITHIN_S
    while not any(map(running, folders)) and time.monotonic() < until:
        if process.poll() is not None:
            said = (out / OUTPUT).read_text("utf-8", "replace").strip().splitlines()
            raise NomoatError((said or ["it said nothing"])[-1].removeprefix("nomoat: "))
        time.sleep(LOOK_S)
    say(f"in the background as process {process.pid}; see: nomoat status (--web), nomoat logs")
