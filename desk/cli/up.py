"""`nomoat up`: a community is run, with a page, metrics and notices beside it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nomoat.server.cli.options import DirCommand, Here
from nomoat.server.cli.up import (
    Detach,
    Host,
    NewTerms,
    Port,
    PortProcesses,
    Quiet,
    Rounds,
    RoundsAsJson,
    Tables,
    UntilDone,
    UpOptions,
    bring_up,
)
from nomoat.server.cli.up import (
    detach as bring_up_detached,
)

if TYPE_CHECKING:
    from nomoat.server.beside import Beside

app = typer.Typer(add_completion=False)

NoWeb = Annotated[bool, typer.Option("--no-web", help="No page in a browser.")]
WebPort = Annotated[
    int | None, typer.Option(min=0, max=65_535, help="Port of the page, on 127.0.0.1.")
]
MetricsPort = Annotated[
    int | None, typer.Option(min=0, max=65_535, help="Port for Prometheus; 0: none.")
]


@app.command(cls=DirCommand)
def up(  # noqa: PLR0913, PLR0917 - a command's options are its parameters
    folder: Here = Path(),
    host: Host = None,
    port: Port = None,
    port_processes: PortProcesses = None,
    rounds: Rounds = None,
    until_done: UntilDone = False,
    as_json: RoundsAsJson = False,
    quiet: Quiet = False,
    no_web: NoWeb = False,
    web_port: WebPort = None,
    metrics_port: MetricsPort = None,
    new_terms: NewTerms = False,
    detach: Detach = False,
) -> None:
    """Open the community's port and run its rounds until all are done (Ctrl-C ends it)."""
    if detach:
        bring_up_detached(folder, [word for word in sys.argv[2:] if word != "--detach"])
        return
    watch = {
        "web": False if no_web else None,
        "web_port": web_port,
        "metrics_port": metrics_port,
    }
    server = {"host": host, "port": port, "port_processes": port_processes}
    tables: Tables = {"server": server, "rounds": {"max_rounds": rounds}, "watch": watch}
    bring_up(UpOptions(folder, until_done, as_json, quiet, tables, new_terms), _watched)


def _watched() -> Beside:
    from nomoat.desk.coordinator.watched import Watched

    return Watched()
