"""`nomoat up`: a community's port is opened, and its rounds are run."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nomoat.server.cli.options import Folder, given, say

if TYPE_CHECKING:
    import threading

    from nomoat.server.beside import Beside

Tables = Mapping[str, Mapping[str, Any]]

Host = Annotated[str | None, typer.Option(help="Address to listen on.")]
Port = Annotated[int | None, typer.Option(help="Port to listen on.")]
Rounds = Annotated[int | None, typer.Option(help="Run this many rounds in all.")]
UntilDone = Annotated[
    bool, typer.Option("--until-done", help="End with the last round; else stay reachable.")
]
RoundsAsJson = Annotated[bool, typer.Option("--json", help="One object per round.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Nothing but errors.")]


@dataclass(frozen=True)
class UpOptions:
    """The options of `nomoat up`. tables: settings that go before community.toml's."""

    folder: Path
    until_done: bool
    as_json: bool
    quiet: bool
    tables: Tables = field(default_factory=dict)

    def flags(self) -> dict[str, Any]:
        """The tables in which something was given."""
        return {name: table for name, values in self.tables.items() if (table := given(values))}


def up(  # noqa: PLR0913, PLR0917 - a command's options are its parameters
    folder: Folder,
    host: Host = None,
    port: Port = None,
    rounds: Rounds = None,
    until_done: UntilDone = False,
    as_json: RoundsAsJson = False,
    quiet: Quiet = False,
) -> None:
    """Open the community's port and run its rounds until all are done (Ctrl-C ends it)."""
    tables: Tables = {"server": {"host": host, "port": port}, "rounds": {"max_rounds": rounds}}
    bring_up(UpOptions(folder, until_done, as_json, quiet, tables))


def bring_up(options: UpOptions, made: Callable[[], Beside] | None = None) -> None:
    """Run a community. made: makes what runs beside its rounds, once numpy may be imported."""
    _prepare_process(options.folder, options.quiet)
    from nomoat.server.beside import Alone, watched_by
    from nomoat.server.community.opened import OpenCommunity
    from nomoat.server.console import ConsoleLines
    from nomoat.server.host import hosting

    beside = Alone() if made is None else made()
    community = OpenCommunity.open(options.folder, **options.flags())
    tell = (lambda _text: None) if options.quiet else say
    with contextlib.ExitStack() as resources:
        resources.enter_context(contextlib.closing(community.registrar.database))
        console = ConsoleLines(options.as_json, options.quiet)
        watcher = watched_by((console, *resources.enter_context(beside.watching(community))))
        deployment = resources.enter_context(hosting(community, watcher, _stopped_by_signals()))
        host = community.settings.server.host
        where = f"[{host}]:{deployment.port}" if ":" in host else f"{host}:{deployment.port}"
        tell(f"{community.settings.community.name} is up on {where}")
        for line in resources.enter_context(beside.showing(deployment)):
            tell(line)
        checkpoint = deployment.run()
        if checkpoint is not None and not options.until_done:
            tell("all rounds are done; the port stays open (Ctrl-C ends it)")
            deployment.stay()
    tell(f"the adapter: nomoat adapter export NEW_FOLDER --dir {options.folder}")
    tell("all rounds are done" if checkpoint is not None else "stopped; nothing is lost")


def _prepare_process(folder: Path, quiet: bool) -> None:
    """Set what must be set before numpy and Flower are imported."""
    import logging
    import os

    from nomoat.server.heap import return_freed_memory
    from nomoat.storage.log_lines import PlainFormatter

    os.environ.setdefault("FLWR_HOME", str((folder / "flower").resolve()))
    # Read when numpy is imported: BLAS threads would spin against those of the sum.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    return_freed_memory()  # many threads, each with adapters in passing
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PlainFormatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.ERROR if quiet else logging.WARNING, handlers=[handler])


def _stopped_by_signals() -> threading.Event:
    """An event that SIGTERM and SIGINT set."""
    import signal
    import threading

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop
