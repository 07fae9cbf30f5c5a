"""`nomoat status`: of a volunteer on this machine, or of a community by its folder; `--web`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from nomoat.client.cli import options
from nomoat.client.cli.status import tell_status
from nomoat.server.cli.options import DirCommand
from nomoat.server.cli.status import tell_overview

app = typer.Typer(add_completion=False)

LIKED_PORT = 8445

Web = Annotated[bool, typer.Option("--web", help="Open a page on this machine; Ctrl-C ends it.")]
Port = Annotated[
    int | None, typer.Option(min=0, max=65_535, help="Of the page; any that is free if left out.")
]
NoBrowser = Annotated[bool, typer.Option("--no-browser", help="Print the page's link alone.")]


Folder = Annotated[
    Path | None,
    typer.Argument(metavar="[DIR]", help="A community kept here, or --dir DIR; else your part."),
]


@app.command(cls=DirCommand)
def status(
    folder: Folder = None,
    community: options.Which = None,
    as_json: options.AsJson = False,
    web: Web = False,
    port: Port = None,
    no_browser: NoBrowser = False,
) -> None:
    """Say what this volunteer is doing, or why not; with DIR: how a community kept here does."""
    if folder is None and not web:
        folder = _kept_here(community)
    if folder is not None:
        tell_overview(folder, as_json)
        return
    if not web:
        tell_status(community, as_json)
        return
    _page(community, port, no_browser)


def _kept_here(community: str | None) -> Path | None:
    """The present folder if it is a community's, and this machine takes part in none."""
    from nomoat.client.home import Home

    here = Path()
    kept = community is None and (here / "community.toml").is_file()
    return here if kept and not Home.find().joined() else None


def _page(community: str | None, port: int | None, no_browser: bool) -> None:
    """Keep the page open until interrupted."""
    import signal
    import threading
    import webbrowser

    from nomoat.client.home import Home
    from nomoat.desk.access.opening import PageAddress, opened
    from nomoat.desk.volunteer.site import refused, volunteer_site

    home = Home.opened()
    home.chosen(community)  # NotJoined if there is nothing to show
    address = PageAddress(port=LIKED_PORT if port is None else port, exact=port is not None)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with opened(volunteer_site(home).app, address, home.root / "page.key", refused) as page:
        sys.stdout.write(page.link + "\n")
        sys.stdout.flush()
        sys.stderr.write("the link opens the page once; another: nomoat page link\n")
        if sys.stdout.isatty() and not no_browser:
            webbrowser.open(page.link)
        stop.wait()
