"""What a volunteer looks at and mends: sent, credit, doctor, logs, service, identity."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from nomoat.client.home import CommunityFolder, Home
    from nomoat.client.service.unit_files import Installation

app = typer.Typer(add_completion=False)
service_app = typer.Typer(help="Start with the session, without a terminal.", no_args_is_help=True)
identity_app = typer.Typer(help="The key that is you, on paper or in a file.", no_args_is_help=True)
app.add_typer(service_app, name="service")
app.add_typer(identity_app, name="identity")

Which = Annotated[
    str | None, typer.Option("--community", help="Name or id, if several were joined.")
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]


@app.command()
def sent(
    community: Which = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check the chain and the community's receipts.")
    ] = False,
    preview: Annotated[
        bool, typer.Option("--preview", help="What a round would send; nothing is sent.")
    ] = False,
    start_over: Annotated[
        bool, typer.Option("--start-over", help="Put a broken log aside and begin a new one.")
    ] = False,
    last: Annotated[int, typer.Option(min=1, help="Messages to show.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Everything that left this machine: when, to whom, what, and how it was hidden."""
    import time

    from nomoat.client.cli import sent as words
    from nomoat.client.home import Home
    from nomoat.client.sent.log_file import SentLog

    home = Home.find()
    folder = home.choose(community)
    sent_log = SentLog(folder.root)
    if start_over:
        typer.echo(f"the old log is now {sent_log.start_over(time.time())}")
        return
    if preview:
        from nomoat.client.sent.preview import outlook

        entry = outlook(home, folder)
        _say_or_json(as_json, words.sent_json([entry])[0], words.render_preview(entry))
        return
    checked = sent_log.check()
    if not verify:
        _say_or_json(
            as_json,
            words.sent_json(checked.entries[-last:]),
            words.render_sent(checked.entries, last),
        )
        return
    _verify(home, folder, as_json)


def _verify(home: Home, folder: CommunityFolder, as_json: bool) -> None:
    from nomoat.client.cli import sent as words
    from nomoat.client.identity.keys import load_identity
    from nomoat.client.sent.log import reconcile
    from nomoat.client.sent.log_file import SentLog

    sent_log = SentLog(folder.root)
    checked = sent_log.check()
    mine = load_identity(home.identity).public
    receipts, problems = sent_log.receipts(folder.info().public, mine)
    older = [receipt for receipt in receipts if receipt.at < sent_log.began()]
    found = reconcile(checked.entries, [receipt for receipt in receipts if receipt not in older])
    good = not problems and not found.unlogged
    shown = {
        "messages": checked.head.length,
        "hash": checked.head.hash.hex(),
        "receipted": found.receipted,
        "without_receipt": len(found.unreceipted),
        "unlogged": [receipt.packet.hex() for receipt in found.unlogged],
        "problems": problems,
        "older_receipts": len(older),
        "ok": good,
    }
    _say_or_json(as_json, shown, words.render_verified(checked, found, problems))
    if older:
        sys.stderr.write(f"{len(older)} receipts belong to a log that was put aside\n")
    raise typer.Exit(0 if good else 1)


@app.command()
def credit(as_json: AsJson = False) -> None:
    """What you gave, counted from receipts that the communities signed."""
    from dataclasses import asdict

    from nomoat.aggregation.protocol.receipts import credits_of
    from nomoat.client.cli.sent import render_credit
    from nomoat.client.home import Home
    from nomoat.client.identity.keys import load_identity
    from nomoat.client.sent.log_file import SentLog

    home = Home.find()
    if not home.joined():
        home.choose(None)  # says how to join
    mine, names, found = load_identity(home.identity).public, {}, []
    for folder in home.joined():
        info = folder.info()
        names[info.public] = info.name
        receipts, problems = SentLog(folder.root).receipts(info.public, mine)
        found += receipts
        for problem in problems:
            sys.stderr.write(f"not counted: {problem}\n")
    credits = credits_of(found)
    shown = [
        {**asdict(c), "community": c.community.hex(), "name": names[c.community]} for c in credits
    ]
    _say_or_json(as_json, shown, render_credit(credits, names))


@app.command()
def doctor(community: Which = None, as_json: AsJson = False) -> None:
    """Look for what is wrong, and say the one command that mends it."""
    from nomoat.client.doctor.checks import examine
    from nomoat.client.doctor.symptoms import doctor_json, exit_code, render_doctor, symptoms
    from nomoat.client.home import Home

    home = Home.find()
    folder = home.choose(community) if home.joined() else None
    results = examine(symptoms(home, folder))
    _say_or_json(as_json, doctor_json(results), render_doctor(results))
    raise typer.Exit(exit_code(results))


@app.command()
def logs(
    community: Which = None,
    last: Annotated[int, typer.Option("-n", "--last", min=1, help="Lines to show.")] = 40,
) -> None:
    """The last lines of what `nomoat run` wrote down."""
    from collections import deque

    from nomoat.client.home import Home

    folder = Home.find().choose(community)
    if not folder.log.exists():
        sys.stderr.write(f"{folder.log} is not there yet; nomoat run writes it\n")
        return
    with folder.log.open(encoding="utf-8", errors="replace") as file:
        for line in deque(file, last):
            sys.stdout.write(line)


@service_app.command("install")
def service_install(
    community: Which = None,
    show: Annotated[
        bool, typer.Option("--print", help="Show the file and the commands, change nothing.")
    ] = False,
) -> None:
    """Take part whenever you are logged in, from now on and after every reboot."""
    from nomoat.client.service.install import install, render_manual

    wanted = _installation(community)
    if show:
        typer.echo(wanted.content.decode("utf-16" if sys.platform == "win32" else "utf-8"))
        typer.echo(render_manual(wanted), err=True)
        return
    typer.echo(install(wanted, sys.platform))


@service_app.command("remove")
def service_remove(community: Which = None) -> None:
    """Stop the service and delete its file."""
    from nomoat.client.service.install import remove

    typer.echo(remove(_installation(community)))


def _installation(community: str | None) -> Installation:
    import os

    from nomoat.client.home import Home
    from nomoat.client.service.install import wanted

    home = Home.find()
    (first, *_) = home.chosen(community)
    return wanted(home, None if community is None else first, os.environ)


@identity_app.command("show")
def identity_show() -> None:
    """Your public key, as communities know you."""
    from nomoat.client.home import Home
    from nomoat.client.identity.keys import load_identity

    typer.echo(load_identity(Home.find().identity).public.hex())


@identity_app.command("export")
def identity_export(
    file: Annotated[Path | None, typer.Argument(help="An encrypted file; without: words.")] = None,
) -> None:
    """Write the identity as 24 words for paper, or to an encrypted file."""
    import os

    from nomoat.client.cli import identity as work
    from nomoat.client.home import Home

    path = Home.find().identity
    if file is None:
        typer.echo(work.render_phrase(work.export_phrase(path)))
        return
    secret = typer.prompt("Passphrase", hide_input=True, confirmation_prompt=True, err=True)
    work.export_file(path, file, secret, os.urandom)
    typer.echo(f"written to {file}, encrypted")


@identity_app.command("import")
def identity_import(
    file: Annotated[Path | None, typer.Argument(help="An exported file; without: words.")] = None,
) -> None:
    """Become again who you were, from 24 words or an exported file."""
    from nomoat.client.cli import identity as work
    from nomoat.client.home import Home

    path = Home.find().identity
    if file is None:
        words = typer.prompt("The 24 words", err=True)
        public = work.import_phrase(words, path)
    else:
        public = work.import_file(file, typer.prompt("Passphrase", hide_input=True, err=True), path)
    typer.echo(f"this machine is {public} again; join your communities anew to take part")


def _say_or_json(as_json: bool, shown: object, text: str) -> None:
    if as_json:
        sys.stdout.write(json.dumps(shown) + "\n")
    else:
        typer.echo(text)
