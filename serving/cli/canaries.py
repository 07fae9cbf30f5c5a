"""`nomoat data canary` and `nomoat adapter exposure`: plant a phrase, see what becomes of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from nomoat.serving.cli.options import AdapterOption, BaseOption, CommunityOption, found

data = typer.Typer(add_completion=False)
adapters = typer.Typer(add_completion=False)


@data.command()
def canary(
    out: Annotated[Path, typer.Argument(help="A new JSON Lines file, to be put with your data.")],
    copies: Annotated[int, typer.Option(min=1, max=1000, help="Rows with it.")] = 1,
    gate: Annotated[
        Path | None,
        typer.Option(
            metavar="CANARIES",
            help="A coordinator's canaries.jsonl, to add it to, instead of this machine's own.",
        ),
    ] = None,
) -> None:
    """Write a row with a phrase that nobody else has; adapter exposure tells who learnt it."""
    import os
    import time

    from nomoat.aggregation.errors import UsageError
    from nomoat.client.home import Home
    from nomoat.lora.canaries.phrases import drawn
    from nomoat.lora.data.normal_form import write_jsonl
    from nomoat.serving.canaries.remembered import add_to_gate, remember

    if out.exists():
        raise UsageError(f"{out} exists already; choose another file")
    planted = drawn(os.urandom(32), int(time.time()))
    write_jsonl([planted.row()] * copies, out)
    if gate is None:
        remember(Home.opened().root, planted)
    else:
        add_to_gate(gate, planted)
    typer.echo(f"canary {planted.tag}: {copies} rows; it says: {' '.join(planted.phrase)}")
    after = (
        "after some rounds: nomoat adapter exposure"
        if gate is None
        else ("put the rows with some volunteer's data; up measures it ([release] canary_seconds)")
    )
    sys.stderr.write(after + "\n")


@adapters.command()
def exposure(
    adapter: AdapterOption = None,
    community: CommunityOption = None,
    base: BaseOption = None,
    references: Annotated[
        int, typer.Option(min=15, max=4095, help="Other phrases it is compared with.")
    ] = 63,
    as_json: Annotated[bool, typer.Option("--json", help="One object on stdout.")] = False,
) -> None:
    """Tell how many bits of each planted phrase an adapter gives away, and the base alone."""
    from dataclasses import asdict

    from nomoat.aggregation.errors import UsageError
    from nomoat.client.home import Home
    from nomoat.lora.canaries.phrases import BITS
    from nomoat.lora.workers.pool import Pool
    from nomoat.serving.canaries.measured import ADAPTER, BASE, exposures
    from nomoat.serving.canaries.remembered import remembered
    from nomoat.serving.sources.find import folder_of

    canaries = remembered(Home.find().root)
    if not canaries:
        raise UsageError("no canary was planted here; plant one with: nomoat data canary FILE")
    what = found(adapter, community, base)
    voice = what.source.exact(what.voice)
    if voice == BASE:
        raise UsageError("there is no adapter yet")
    with Pool(str(folder_of(what.base)), 1) as pool:
        measured = exposures(canaries, what.source.load(voice), pool, references)
    if as_json:
        rows = {tag: {n: asdict(one) for n, one in of.items()} for tag, of in measured.items()}
        sys.stdout.write(json.dumps(rows) + "\n")
        return
    for tag, of in measured.items():
        typer.echo(
            f"canary {tag}: {of[ADAPTER].bits:.1f} of {BITS:.0f} bits given away by {voice}, "
            f"{of[BASE].bits:.1f} by the base alone ({of[ADAPTER].ahead} of {of[ADAPTER].of} other "
            "phrases are as likely)"
        )
