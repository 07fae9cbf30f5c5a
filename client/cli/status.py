"""The words of `nomoat status` for a volunteer, and `nomoat logs`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from nomoat.client.cli import options
from nomoat.client.cli.output import say, say_or_json

if TYPE_CHECKING:
    from nomoat.client.home import CommunityFolder

app = typer.Typer(add_completion=False)


def tell_status(community: str | None, as_json: bool) -> None:
    """Say what this volunteer is doing, and if it is not training, why; JSON: a line for each."""
    from datetime import UTC, datetime

    from nomoat.client.cli.status_page import render_status, status_json
    from nomoat.client.home import Home
    from nomoat.client.machine import owner_orders
    from nomoat.client.volunteer.status import activity, read_status, running

    for number, folder in enumerate(Home.find().chosen(community)):
        if number and not as_json:
            typer.echo()
        found, alive = read_status(folder), running(folder)
        now = activity(found, owner_orders.read(folder.root), alive, datetime.now(UTC))
        hidden = _protection(folder)
        shown = status_json(folder, now, found, hidden)
        say_or_json(as_json, shown, render_status(folder, now, found, hidden))


def _protection(folder: CommunityFolder) -> str:
    """Say how updates are hidden, with the last session's size, and if the log is broken, that."""
    from nomoat.aggregation.errors import NomoatError
    from nomoat.client.membership.consent_sheet import protection, protection_now
    from nomoat.client.sent.log_file import SentLog

    info = folder.info()
    try:
        return protection_now(info, SentLog(folder.root).recent())
    except NomoatError as problem:
        return f"{protection(info)}; {problem}"


@app.command()
def logs(
    community: options.Which = None,
    last: Annotated[int, typer.Option("-n", "--last", min=1, help="Lines to show.")] = 40,
) -> None:
    """Show the last lines of what `nomoat run` wrote down."""
    from collections import deque

    from nomoat.client.home import Home

    folder = Home.find().choose(community)
    if not folder.log.exists():
        say(f"{folder.log} is not there yet; nomoat run writes it")
        return
    with folder.log.open(encoding="utf-8", errors="replace") as file:
        for line in deque(file, last):
            sys.stdout.write(line)
