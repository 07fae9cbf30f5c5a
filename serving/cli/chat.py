"""`nomoat chat`: talk to what a community has made."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from nomoat.serving.cli.options import ModelOptions, takes_model

if TYPE_CHECKING:
    from nomoat.lora.inference.requests import Sampling
    from nomoat.serving.engines import Loaded
    from nomoat.serving.sources.find import Found
    from nomoat.serving.terminal.chat import Talk

app = typer.Typer(add_completion=False)


@app.command()
@takes_model
def chat(  # noqa: PLR0913, PLR0917 - a command's options are its parameters
    model: ModelOptions,
    compare: Annotated[
        bool, typer.Option("--compare", help="Base, community and personal side by side.")
    ] = False,
    system: Annotated[str, typer.Option(help="A system message to begin with.")] = "",
    temperature: Annotated[float, typer.Option(min=0.0, max=2.0)] = 0.7,
    top_p: Annotated[float, typer.Option(min=0.01, max=1.0)] = 0.95,
    max_tokens: Annotated[int, typer.Option(min=1, help="Of one answer.")] = 512,
    seed: Annotated[int | None, typer.Option(help="The same answers again.")] = None,
) -> None:
    """Talk to the model in this terminal (/help shows the commands; Ctrl-C stops an answer)."""
    from nomoat.lora.inference.requests import Sampling
    from nomoat.serving import engines
    from nomoat.serving.sources.find import folder_of

    what = model.source()
    what.source.exact(what.voice)
    names = _names(what.source.voices(), what.voice)
    kind, used = model.kind(), model.machine()
    with engines.running(folder_of(what.base), kind, used) as loaded:
        sys.stderr.write(f"{what.source.title}: {', '.join(names)} ({loaded.said})\n")
        talk = _talk(what, loaded, names, Sampling(max_tokens, temperature, top_p, seed))
        talk.session.comparing, talk.session.system = compare and len(names) > 1, system
        if talk.prompts.plain:
            sys.stderr.write("the base has no chat template: questions are put as plain text\n")
        sys.stderr.write("/help shows the commands, /quit leaves\n")
        talk.run()


def _talk(what: Found, loaded: Loaded, names: tuple[str, ...], sampling: Sampling) -> Talk:
    from rich.console import Console

    from nomoat.client.home import Home
    from nomoat.lora.inference.chat_session import ChatSession
    from nomoat.lora.inference.prompts import Prompts
    from nomoat.serving.terminal.chat import Talk, read_line
    from nomoat.serving.terminal.ratings import Ratings
    from nomoat.serving.voices import EngineVoices

    voices = EngineVoices(loaded.engine, what.source)
    voices.prepare()
    _edit_lines()
    return Talk(
        ChatSession(names, what.voice),
        voices,
        Prompts.of(loaded.tokenizer),
        sampling,
        Console(),
        Ratings.of(Home.find().root),
        read_line,
        time.time,
    )


def _names(voices: tuple[str, ...], chosen: str) -> tuple[str, ...]:
    """Voices a chat offers: those without a number, and the one that was asked for."""
    plain = tuple(name for name in voices if "@" not in name)
    return plain if chosen in plain else (*plain, chosen)


def _edit_lines() -> None:
    """Give `input` history and editing, where Python has them."""
    import contextlib

    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - importing it is what does it
