"""`nomoat data`: look at a data file before anything trains on it."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from nomoat.lora.data.preview import Preview

RANK = 8  # as a community has it unless it says otherwise

app = typer.Typer(help="Look at training data.", no_args_is_help=True)


@app.command("preview")
def preview_file(
    file: Annotated[Path, typer.Argument(help="Data file, or a folder of them.")],
    model: Annotated[
        str, typer.Option(help="Whose tokenizer and template: a folder or hub id.")
    ] = "pocket",
    seq_len: Annotated[
        int | None, typer.Option(min=8, help="Tokens per example (default: from the data).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One object on stdout.")] = False,
    given: Annotated[
        bool, typer.Option("--given", hidden=True, help="A community's length: not to be chosen.")
    ] = False,
) -> None:
    """Show one encoded example with its trained tokens, counts, and what was dropped and why."""
    from rich.console import Console

    from nomoat.aggregation.errors import BadData
    from nomoat.client.data.preview import as_json as to_json
    from nomoat.client.data.preview import render
    from nomoat.lora.data.files.listing import shown
    from nomoat.lora.data.row_counts import in_words

    found = _previewed(file, model, seq_len, given)
    if as_json:
        json.dump(to_json(found), sys.stdout)
        sys.stdout.write("\n")
    else:
        console = Console()
        console.print(render(found), soft_wrap=not console.is_terminal)
    if not found.usable:
        raise BadData(f"no row of {shown(file)} can be trained on: {in_words(found.dropped)}")


def _previewed(file: Path, model: str, seq_len: int | None, given: bool) -> Preview:
    from nomoat.client.training.row_fit import row_fits
    from nomoat.lora.data.encoding import Encoder
    from nomoat.lora.data.lengths import UNCUT, asking, choose, measure, mending
    from nomoat.lora.data.preview import preview
    from nomoat.lora.data.reading import read
    from nomoat.lora.model.base_model import load_tokenizer
    from nomoat.lora.model.context import context_length
    from nomoat.lora.model.files import config, resolve

    dataset = read(file)
    folder = resolve(model)
    encoder, context = (
        Encoder.of(load_tokenizer(str(folder)), UNCUT),
        context_length(config(folder)),
    )
    lengths = measure(encoder, dataset.conversations)
    reason = ""
    if seq_len is None:
        chosen = choose(lengths, context, row_fits(folder, RANK))
        seq_len, reason = chosen.seq_len, chosen.reason
    encoder, mend = replace(encoder, seq_len=seq_len), asking if given else mending
    return preview(dataset, encoder, lengths, context, reason, mend)


@app.command("scan")
def scan_file(
    file: Annotated[Path, typer.Argument(help="Data file, or a folder of them.")],
    as_json: Annotated[bool, typer.Option("--json", help="One object on stdout.")] = False,
) -> None:
    """Show rows that look like keys, passwords, addresses or cards; training leaves them out."""
    from dataclasses import asdict

    from nomoat.client.data import secrets_allowlist
    from nomoat.client.data.secrets_report import render_scan
    from nomoat.client.data.split import scan_rows
    from nomoat.client.home import Home
    from nomoat.lora.data.reading import read

    found, keep = scan_rows(read(file.resolve())), secrets_allowlist.load(Home.find().root)
    if not as_json:
        typer.echo(render_scan(found, keep))
        return
    shown = {
        "rows": found.rows,
        "findings": [asdict(finding) for finding in found.findings],
        "left_out": sorted(found.excluded(keep)),
    }
    sys.stdout.write(json.dumps(shown) + "\n")


@app.command("keep")
def keep_rows(
    marks: Annotated[list[str] | None, typer.Argument(help="Marks that `scan` shows.")] = None,
    kind: Annotated[
        list[str] | None, typer.Option(help="A whole kind, as `scan` names it.")
    ] = None,
    row: Annotated[list[str] | None, typer.Option(help="A row: FILE:LINE.")] = None,
) -> None:
    """Train on purpose on something that looks secret; without arguments: show what is kept."""
    from nomoat.client.data import secrets_allowlist
    from nomoat.client.data.secrets_scan import Allowlist
    from nomoat.client.home import Home

    root = Home.opened().root
    added = Allowlist(frozenset(row or ()), frozenset(kind or ()), frozenset(marks or ()))
    keep = secrets_allowlist.more(secrets_allowlist.load(root), added)
    if added != Allowlist():
        secrets_allowlist.save(root, keep)
    everything = [*sorted(keep.marks), *sorted(keep.kinds), *sorted(keep.origins)]
    typer.echo("\n".join(everything) or "nothing that looks secret is kept")


@app.callback()
def group() -> None:
    """Look at training data."""
