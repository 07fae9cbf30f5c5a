"""`nomoat try`: a real federation on loopback in about a minute, and no trace of it afterwards."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from nomoat.server.rounds.watching import Watcher
    from nomoat.simulations.loopback.processes import LoopbackFederation

app = typer.Typer(add_completion=False)

VOLUNTEERS = 3
ROWS = 400  # of one topic each
TRAINING = ("--local-steps", "12", "--batch-size", "8", "--seq-len", "96")
START_S, ROUND_S, FETCH_S = 180.0, 240.0, 60.0


@app.command("try")
def try_it(
    rounds: Annotated[int, typer.Option(min=1, max=20)] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="One object on stdout.")] = False,
    keep: Annotated[
        Path | None, typer.Option(help="Keep keys, logs and adapters in this folder.")
    ] = None,
) -> None:
    """A real federation on this machine: coordinator and 3 volunteers as processes, TLS, signed."""
    from nomoat.aggregation.errors import UsageError

    if keep is not None and keep.exists():
        raise UsageError(f"{keep} exists already; choose another folder")
    with tempfile.TemporaryDirectory(prefix="nomoat-try-") as folder:
        root = Path(folder)
        if keep is not None:
            keep.mkdir(parents=True)
            root = keep
        _federate(root, rounds, as_json)


def _federate(root: Path, rounds: int, as_json: bool) -> None:
    from rich.console import Console

    from nomoat.simulations.loopback.processes import LoopbackFederation
    from nomoat.simulations.report.live_table import LiveTable, Silence

    console = Console(stderr=True)
    started = time.monotonic()
    names = [f"volunteer{number + 1}" for number in range(VOLUNTEERS)]
    with LoopbackFederation(root) as federation:
        _start(federation, names, rounds, console)
        if as_json:
            _follow(federation, rounds, Silence())
        else:
            with LiveTable(console, rounds) as table:
                _follow(federation, rounds, table)
        _end(federation, names, started, as_json)


def _start(federation: LoopbackFederation, names: list[str], rounds: int, console: Console) -> None:
    """Make the community, open its port, and let every volunteer join."""
    from nomoat.simulations.pocket import MODEL_DIR

    console.print("making a community: keys, certificate, first adapter …", style="dim")
    options = ("--min-volunteers", str(VOLUNTEERS), "--allow-weak", "--max-rounds", str(rounds))
    federation.init("nomoat try", MODEL_DIR, (*options, *TRAINING))
    files = share_out(federation.root, names)
    federation.up()
    link = federation.invite(VOLUNTEERS)
    federation.wait("the coordinator", lambda: bool(federation.hosted()), START_S)
    for name in names:
        federation.join(name, link, files[name], MODEL_DIR)
    console.print(
        f"invited {VOLUNTEERS} volunteers; each is a process with its own keys and data "
        f"(TLS on localhost:{federation.port})",
        style="dim",
    )


def _follow(federation: LoopbackFederation, rounds: int, watcher: Watcher) -> None:
    """Tell `watcher` of everything until the rounds are over."""
    from nomoat.server.rounds.watching import RoundProgress

    shown = 0

    def over() -> bool:
        return len(federation.records()) > rounds

    for _ in federation.watch("the rounds", over, START_S + rounds * ROUND_S):
        for record in federation.records()[shown:]:
            watcher.ended(record)
            shown += 1
        if state := federation.hosted():
            counts = (state["answered"], state["asked"])
            watcher.progress(RoundProgress(state["round"], state["phase"], *counts))
    for record in federation.records()[shown:]:
        watcher.ended(record)


def _end(federation: LoopbackFederation, names: list[str], started: float, as_json: bool) -> None:
    verified = json.loads(
        federation.call("adapter", "verify", "--dir", str(federation.folder), "--json")
    )
    newest = verified["versions"] - 1
    federation.wait(
        "every volunteer's copy of the adapter",
        lambda: all(federation.state(name).get("version") == newest for name in names),
        FETCH_S,
    )
    records = federation.records()
    first, last = records[0].loss, records[-1].loss
    seconds = time.monotonic() - started
    if as_json:
        shown = {"rounds": [record.as_json() for record in records], "seconds": seconds}
        sys.stdout.write(json.dumps({**shown, "versions": verified["versions"]}) + "\n")
        return
    change = "" if not first or last is None else f", held-out loss {first:.4f} → {last:.4f}"
    sys.stderr.write(
        f"\n{len(records) - 1} rounds in {seconds:.0f} s{change}; {verified['versions']} signed "
        f"versions, verified by all {len(names)} volunteers\n"
        "for real: nomoat init, nomoat up, nomoat invite; then nomoat join on each machine\n"
    )


def share_out(root: Path, names: list[str]) -> dict[str, Path]:
    """Each volunteer's file: rows of one topic of the embedded data, another for everyone."""
    import platformdirs

    from nomoat.lora.data.normal_form import write_jsonl
    from nomoat.lora.data.reading import read
    from nomoat.simulations.partition import by_field
    from nomoat.simulations.pocket.corpus import cached_jsonl

    cache = Path(platformdirs.user_cache_dir("nomoat")) / "pocket"
    topics = by_field(read(cached_jsonl(cache)).conversations, "topic", len(names))
    files = {}
    for name, rows in zip(names, topics.values(), strict=True):
        files[name] = root / f"{name}.jsonl"
        write_jsonl(rows[:ROWS], files[name])
    return files
