"""`nomoat sent` and `nomoat credit`: what left this machine, and what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from nomoat.client.cli import options
from nomoat.client.cli.output import say, say_or_json

if TYPE_CHECKING:
    from nomoat.client.connection.coordinator_api import CoordinatorClient
    from nomoat.client.home import CommunityFolder, Home

app = typer.Typer(add_completion=False)

Verify = Annotated[
    bool, typer.Option("--verify", help="Check the chain and the community's receipts.")
]
ShowNext = Annotated[
    bool, typer.Option("--preview", help="What a round would send; nothing is sent.")
]
StartOver = Annotated[
    bool, typer.Option("--start-over", help="Put a broken log aside and begin a new one.")
]
Last = Annotated[int, typer.Option(min=1, help="Messages to show.")]


@app.command()
def sent(
    community: options.Which = None,
    verify: Verify = False,
    preview: ShowNext = False,
    start_over: StartOver = False,
    last: Last = 20,
    as_json: options.AsJson = False,
) -> None:
    """Everything that left this machine: when, to whom, what, and how it was hidden."""
    import time

    from nomoat.client.home import Home
    from nomoat.client.sent.log_file import SentLog

    home = Home.find()
    folder = home.choose(community)
    if start_over:
        typer.echo(f"the old log is now {SentLog(folder.root).start_over(time.time())}")
    elif preview:
        _preview(home, folder, as_json)
    elif verify:
        _verify(home, folder, as_json)
    else:
        _show(folder, last, as_json)


def _show(folder: CommunityFolder, last: int, as_json: bool) -> None:
    from nomoat.client.cli.sent_page import render_sent, sent_json
    from nomoat.client.sent.log_file import SentLog

    entries = SentLog(folder.root).check().entries
    say_or_json(as_json, sent_json(entries[-last:]), render_sent(entries, last))


def _preview(home: Home, folder: CommunityFolder, as_json: bool) -> None:
    from nomoat.client.cli.sent_page import render_preview, sent_json
    from nomoat.client.membership.joining import coordinator_of
    from nomoat.client.sent.preview import next_update

    def coordinator() -> CoordinatorClient:
        return coordinator_of(home, folder, folder.load().address, folder.info().ca)

    entry = next_update(folder, coordinator)
    say_or_json(as_json, sent_json([entry])[0], render_preview(entry))


def _verify(home: Home, folder: CommunityFolder, as_json: bool) -> None:
    from nomoat.client.cli.sent_page import render_verified, verified_json
    from nomoat.client.identity.keys import load_identity
    from nomoat.client.membership.receipted_log import receipts_of_log
    from nomoat.client.sent.log import reconcile
    from nomoat.client.sent.log_file import SentLog

    sent_log = SentLog(folder.root)
    checked = sent_log.check()
    _fetch_all(home, folder)
    mine = load_identity(home.identity).public
    receipts, problems = sent_log.receipts(folder.keys(), mine)
    ours = receipts_of_log(folder.root, checked.entries, receipts, mine)
    found, older = reconcile(checked.entries, ours), len(receipts) - len(ours)
    shown = verified_json(checked, found, problems, older)
    say_or_json(as_json, shown, render_verified(checked, found, problems))
    if older:
        say(f"{older} receipts belong to a log that was put aside, or left with its community")
    raise typer.Exit(0 if shown["ok"] else 1)


def _fetch_all(home: Home, folder: CommunityFolder) -> None:
    """Ask for every receipt again: a log that lost its end may have lost them here, too."""
    from nomoat.aggregation.errors import NomoatError
    from nomoat.client.volunteer.follower import fetch_receipts
    from nomoat.client.volunteer.kit import Kit

    try:
        fetch_receipts(Kit.of(home, folder, folder.load()), first_round=0)
    except NomoatError as problem:
        say(f"compared with the receipts that are here only: {problem}")


@app.command()
def credit(as_json: options.AsJson = False) -> None:
    """Show what you gave, counted from receipts that the communities signed."""
    from nomoat.aggregation.protocol.receipts import credits_of
    from nomoat.client.cli.sent_page import credit_json, render_credit
    from nomoat.client.home import Home
    from nomoat.client.identity.keys import load_identity
    from nomoat.client.sent.log_file import SentLog

    home = Home.find()
    folders = home.chosen(None)
    mine, names, found = load_identity(home.identity).public, {}, []
    for folder in folders:
        keys = folder.keys()
        names[keys.founding] = folder.info().name
        receipts, problems = SentLog(folder.root).receipts(keys, mine)
        found += receipts
        for problem in problems:
            say(f"not counted: {problem}")
    credits = credits_of(found)
    say_or_json(as_json, credit_json(credits, names), render_credit(credits, names))
