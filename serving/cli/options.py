"""Options that several commands share, and the source they mean."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from nomoat.serving.engines import EngineHost, EngineKind
    from nomoat.serving.sources.find import Found

AdapterOption = Annotated[
    str | None,
    typer.Option(
        "--adapter",
        metavar="WHICH",
        help="A run's, community's or PEFT folder, or a version: 12, community@12, personal.",
    ),
]
CommunityOption = Annotated[
    str | None, typer.Option("--community", help="Which of the communities you have joined.")
]
BaseOption = Annotated[
    str | None, typer.Option("--base", help="Where the base model is: a folder or hub id.")
]
EngineOption = Annotated[
    str, typer.Option("--engine", help="auto, peft, or gguf (pip install 'nomoat[gguf]').")
]
DeviceOption = Annotated[
    str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps (the peft engine's).")
]
ThreadsOption = Annotated[
    int, typer.Option("--threads", min=0, help="Processor threads; 0: one per core.")
]
QuantOption = Annotated[
    str, typer.Option("--quant", help="The gguf engine's base: f32, f16, q8_0 or q4_0.")
]


def found(adapter: str | None, community: str | None, base: str | None) -> Found:
    """The source that the three options mean."""
    from nomoat.client.home import Home
    from nomoat.serving.sources.find import Wanted, find

    return find(Wanted(adapter, community, base), Path.cwd(), Home.find())


def engine_kind(name: str) -> EngineKind:
    """UsageError for an engine that there is not."""
    from nomoat.aggregation.errors import UsageError
    from nomoat.serving.engines import EngineKind

    try:
        return EngineKind(name)
    except ValueError:
        raise UsageError(f"--engine {name}: choose auto, peft or gguf") from None


def machine(device: str, threads: int, quant: str) -> EngineHost:
    """This machine as the options want it used."""
    import platformdirs

    from nomoat.aggregation.errors import UsageError
    from nomoat.lora.export.llama_cpp.files import QUANTS
    from nomoat.serving.engines import EngineHost

    if quant not in QUANTS:
        raise UsageError(f"--quant {quant}: choose one of {', '.join(QUANTS)}")
    cache = Path(platformdirs.user_cache_dir("nomoat"))
    return EngineHost(cache, device, threads, quant=quant)
