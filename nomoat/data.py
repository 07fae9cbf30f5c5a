"""`nomoat data`: look at a data file before anything trains on it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Look at training data.", no_args_is_help=True)


@app.command("preview")
def preview_file(
    file: Annotated[Path, typer.Argument(help="Data file, or a folder of them.")],
    model: Annotated[
        str, typer.Option(help="Whose tokenizer and template: a folder or hub id.")
    ] = "pocket",
    seq_len: Annotated[int, typer.Option(min=8, help="Tokens per example.")] = 128,
    as_json: Annotated[bool, typer.Option("--json", help="One object on stdout.")] = False,
) -> None:
    """Show one encoded example with its trained tokens, counts, and what was dropped and why."""
    from rich.console import Console

    from nomoat.client.preview import as_json as to_json
    from nomoat.client.preview import render
    from nomoat.lora.base_model import load_tokenizer
    from nomoat.lora.encoding import Encoder, preview
    from nomoat.lora.formats import read
    from nomoat.simulations.pocket import MODEL_DIR, POCKET

    dataset = read(file)
    found = preview(
        dataset, Encoder.of(load_tokenizer(str(MODEL_DIR) if model == POCKET else model), seq_len)
    )
    if as_json:
        json.dump(to_json(found), sys.stdout)
        sys.stdout.write("\n")
    else:
        Console().print(render(found))


@app.callback()
def group() -> None:
    """Look at training data."""
