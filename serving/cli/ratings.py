"""`nomoat data from-chats`: rows to train on, out of answers that were rated in chats."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)


@app.command("from-chats")
def from_chats(
    out: Annotated[Path, typer.Argument(help="A new JSON Lines file; - for stdout.")],
    least: Annotated[int, typer.Option("--stars", min=1, max=5, help="At least so good.")] = 4,
) -> None:
    """Write rated answers as training rows; they stay on this machine until you train on them."""
    from nomoat.aggregation.errors import UsageError
    from nomoat.client.home import Home
    from nomoat.serving.terminal.ratings import Ratings, training_rows
    from nomoat.storage.atomic import replacing

    ratings = Ratings.of(Home.find().root)
    rows = training_rows(ratings, least)
    if not rows:
        raise UsageError(f"no answer rated {least} or better yet; rate with /rate in: nomoat chat")
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    if str(out) == "-":
        sys.stdout.write("".join(lines))
        return
    if out.exists():
        raise UsageError(f"{out} exists already; choose another file")
    with replacing(out, 0o600) as file:
        file.write("".join(lines).encode())
    sys.stderr.write(f"{len(lines)} rows; next: nomoat data preview {out}\n")
