"""`nomoat serve`: an OpenAI-compatible server on this machine."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from nomoat.serving.cli.options import ModelOptions, takes_model

if TYPE_CHECKING:
    from nomoat.serving.engines import EngineHost, EngineKind
    from nomoat.serving.sources.find import Found

app = typer.Typer(add_completion=False)


@app.command()
@takes_model
def serve(
    model: ModelOptions,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0: any that is free.")] = 8010,
    key: Annotated[
        str | None,
        typer.Option(envvar="NOMOAT_API_KEY", help="What clients say; a fresh one if left out."),
    ] = None,
    allow_origin: Annotated[
        list[str] | None, typer.Option(help="A web page that may ask: https://example.org.")
    ] = None,
) -> None:
    """Answer OpenAI's API (chat, completions, streaming) for base, community and personal."""
    what, kind = model.source(), model.kind()
    what.source.exact(what.voice)  # a version that does not exist is said now
    access = _Access(host, port, key, tuple(allow_origin or ()))
    _serve(what, kind, model.machine(), access)


@dataclass(frozen=True)
class _Access:
    """An address and who may ask there. key: None for a fresh one. origins: of web pages."""

    host: str
    port: int
    key: str | None
    origins: tuple[str, ...]


def _serve(what: Found, kind: EngineKind, used: EngineHost, access: _Access) -> None:
    """Load the engine, print how to reach it, answer until interrupted."""
    import secrets

    from nomoat.lora.inference.prompts import Prompts
    from nomoat.serving import engines
    from nomoat.serving.http.app import ApiService, make_app
    from nomoat.serving.http.running import bound, serve_app
    from nomoat.serving.sources.find import folder_of
    from nomoat.serving.voices import EngineVoices

    base = folder_of(what.base)
    with bound(access.host, access.port) as listening, engines.running(base, kind, used) as made:
        voices = EngineVoices(made.engine, what.source)
        voices.prepare()
        secret = access.key or f"nomoat-{secrets.token_urlsafe(24)}"  # never begins with a dash
        service = ApiService(voices, Prompts.of(made.tokenizer), secret, time.time, access.origins)
        names = ", ".join(name for name in what.source.voices() if "@" not in name)
        sys.stderr.write(f"{what.source.title}: {names} ({made.said})\n")
        url = f"http://{access.host}:{listening.getsockname()[1]}/v1"
        sys.stdout.write(f"OPENAI_BASE_URL={url}\nOPENAI_API_KEY={secret}\n")
        sys.stdout.flush()
        serve_app(make_app(service), listening)
