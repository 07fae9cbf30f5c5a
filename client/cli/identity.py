"""`nomoat identity show`, `export` and `import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="The key that is you, on paper or in a file.", no_args_is_help=True)

WORDS_IN_A_ROW = 4


@app.command("show")
def show() -> None:
    """Show your public key, as communities know you."""
    from nomoat.client.home import Home
    from nomoat.client.identity.keys import load_identity

    typer.echo(load_identity(Home.opened().identity).public.hex())


@app.command("export")
def export(
    file: Annotated[Path | None, typer.Argument(help="An encrypted file; without: words.")] = None,
) -> None:
    """Write the identity as 24 words for paper, or to an encrypted file."""
    import os

    from nomoat.client.home import Home
    from nomoat.client.identity import transfer

    path = Home.opened().identity
    if file is None:
        typer.echo(render_phrase(transfer.export_phrase(path)))
        return
    secret = typer.prompt("Passphrase", hide_input=True, confirmation_prompt=True, err=True)
    transfer.export_file(path, file, secret, os.urandom)
    typer.echo(f"written to {file}, encrypted")


@app.command("import")
def import_(
    file: Annotated[Path | None, typer.Argument(help="An exported file; without: words.")] = None,
) -> None:
    """Become again who you were, from 24 words or an exported file."""
    from nomoat.client.home import Home
    from nomoat.client.identity import transfer

    path = Home.opened().identity
    if file is None:
        public = transfer.import_phrase(typer.prompt("The 24 words", err=True), path)
    else:
        passphrase = typer.prompt("Passphrase", hide_input=True, err=True)
        public = transfer.import_file(file, passphrase, path)
    typer.echo(f"this machine is {public} again; join your communities anew to take part")


def render_phrase(words: str) -> str:
    """The phrase in numbered rows, and what it is worth."""
    numbered = [f"{number:2d}. {word:<10}" for number, word in enumerate(words.split(), 1)]
    starts = range(0, len(numbered), WORDS_IN_A_ROW)
    rows = ["".join(numbered[at : at + WORDS_IN_A_ROW]).rstrip() for at in starts]
    return "\n".join([*rows, "", "Whoever has these words is you. Keep them on paper."])
