"""The work of `nomoat up`: a community's port is opened, and its rounds are run."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nomoat.server.cli.options import given, opened, say

if TYPE_CHECKING:
    import threading

    from nomoat.server.beside import Beside

Tables = Mapping[str, Mapping[str, Any]]

Host = Annotated[str | None, typer.Option(help="Address to listen on.")]
Port = Annotated[int | None, typer.Option(help="Port to listen on.")]
PortProcesses = Annotated[
    int | None,
    typer.Option(help="For thousands of volunteers: so many processes hold their connections."),
]
Rounds = Annotated[int | None, typer.Option(help="Run this many rounds in all.")]
UntilDone = Annotated[
    bool, typer.Option("--until-done", help="End with the last round; else stay reachable.")
]
RoundsAsJson = Annotated[bool, typer.Option("--json", help="One object per round.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Nothing but errors.")]
NewTerms = Annotated[
    bool,
    typer.Option(
        "--new-terms", help="Ask members again who agreed to stricter terms, instead of refusing."
    ),
]
Detach = Annotated[bool, typer.Option("--detach", help="Go on in the background.")]

STARTS_WITHIN_S, LOOK_S = 60.0, 0.1
OUTPUT = "up.out"


@dataclass(frozen=True)
class UpOptions:
    """The options of `nomoat up`. tables: settings that go before community.toml's."""

    folder: Path
    until_done: bool
    as_json: bool
    quiet: bool
    tables: Tables = field(default_factory=dict)
    new_terms: bool = False

    def flags(self) -> dict[str, Any]:
        """The tables in which something was given."""
        return {name: table for name, values in self.tables.items() if (table := given(values))}


def bring_up(options: UpOptions, made: Callable[[], Beside] | None = None) -> None:
    """Run a community. made: makes what runs beside its rounds, once numpy may be imported."""
    _prepare_process(options.folder, options.quiet)
    from nomoat.server.beside import Alone

    beside = Alone() if made is None else made()
    stop, tell = _stopped_by_signals(), (lambda _text: None) if options.quiet else say
    while _is_changed(options, beside, stop, tell):  # its key: then it is opened anew
        tell("the community has changed its key; its members follow")


def _is_changed(
    options: UpOptions, beside: Beside, stop: threading.Event, tell: Callable[[str], None]
) -> bool:
    """Run a community until its end, or until its next key waits: True once that is in place."""
    import time

    from nomoat.server.community.opened import OpenCommunity
    from nomoat.server.host import KeyWaits
    from nomoat.server.succession.rotation import rotate

    try:
        _run(options, beside, stop, tell)
    except KeyWaits:
        community = OpenCommunity.open(options.folder, **options.flags())
        with contextlib.closing(community.registrar.database):
            rotate(community, int(time.time()))
        return True
    return False


def _run(
    options: UpOptions, beside: Beside, stop: threading.Event, tell: Callable[[str], None]
) -> None:
    from nomoat.server.beside import watched_by
    from nomoat.server.community.opened import OpenCommunity
    from nomoat.server.console import ConsoleLines
    from nomoat.server.host import hosting
    from nomoat.server.recovery.asking import ask_members

    community = OpenCommunity.open(options.folder, **options.flags())
    if community.folder.restoring.exists():
        with contextlib.closing(community.registrar.database):
            if not ask_members(community, stop, tell, watched_by(())):
                tell("stopped; nothing is lost")
                return
        community = OpenCommunity.open(options.folder, **options.flags())
    with contextlib.ExitStack() as resources:
        resources.enter_context(contextlib.closing(community.registrar.database))
        console = ConsoleLines(options.as_json, options.quiet)
        watcher = watched_by((console, *resources.enter_context(beside.watching(community))))
        deployment = resources.enter_context(hosting(community, watcher, stop, options.new_terms))
        host = community.settings.server.host
        where = f"[{host}]:{deployment.port}" if ":" in host else f"{host}:{deployment.port}"
        tell(f"{community.settings.community.name} is up on {where}")
        for line in resources.enter_context(beside.showing(deployment)):
            tell(line)
        tell(f"{_export(options.folder)}    how it does: nomoat status {options.folder}")
        checkpoint = deployment.run()
        if checkpoint is not None and not options.until_done:
            tell("all rounds are done; the port stays open (Ctrl-C ends it)")
            deployment.stay()
    tell(_export(options.folder))
    tell("all rounds are done" if checkpoint is not None else "stopped; nothing is lost")


def _export(folder: Path) -> str:
    return f"the adapter: nomoat adapter export NEW_FOLDER --dir {folder}"


def detach(folder: Path, arguments: Sequence[str]) -> None:
    """Run `nomoat up` in a session of its own, and wait until its port is open.

    arguments: those of the command, without --detach. NomoatError with its last line if it ends.
    """
    import time

    from nomoat import background
    from nomoat.aggregation.errors import NomoatError

    opened(folder)  # refused here, where it is read
    out = folder / OUTPUT
    process = background.start(("up", *arguments), out)
    until = time.monotonic() + STARTS_WITHIN_S
    while not _is_up(folder, process.pid) and time.monotonic() < until:
        if process.poll() is not None:
            said = out.read_text("utf-8", "replace").strip().splitlines() or ["it said nothing"]
            raise NomoatError(said[-1].removeprefix("nomoat: "))
        time.sleep(LOOK_S)
    say(f"in the background as process {process.pid}; what it says is in {out}")
    say(f"how it does: nomoat status {folder}    to end it: nomoat down {folder}")


def _is_up(folder: Path, process: int) -> bool:
    """Return True once the process that was started, or its child, has the port open.

    On Windows a virtual environment's interpreter is a launcher, and the coordinator its child.
    """
    import psutil

    from nomoat.server.overview import up_process

    found = up_process(folder)
    with contextlib.suppress(psutil.Error):
        return found is not None and process in (found, psutil.Process(found).ppid())
    return False


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
