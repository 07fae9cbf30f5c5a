"""Options that several commands share, and the source they mean."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from inspect import Parameter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

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
    str, typer.Option("--engine", help="auto, peft, or gguf (pip install gguf xllamacpp).")
]
DeviceOption = Annotated[
    str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps or xpu (the peft engine's).")
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


@dataclass(frozen=True)
class ModelOptions:
    """Options of every command that answers: which adapter, over which base, by which engine."""

    adapter: AdapterOption = None
    community: CommunityOption = None
    base: BaseOption = None
    engine: EngineOption = "auto"
    device: DeviceOption = "auto"
    threads: ThreadsOption = 0
    quant: QuantOption = "f16"

    def source(self) -> Found:
        """Return the source that is meant."""
        return found(self.adapter, self.community, self.base)

    def kind(self) -> EngineKind:
        """Return the engine; UsageError for one that there is not."""
        from nomoat.aggregation.errors import UsageError
        from nomoat.serving.engines import EngineKind

        try:
            return EngineKind(self.engine)
        except ValueError:
            raise UsageError(f"--engine {self.engine}: choose auto, peft or gguf") from None

    def machine(self) -> EngineHost:
        """Return this machine as the options want it used."""
        import platformdirs

        from nomoat.aggregation.errors import UsageError
        from nomoat.lora.export.llama_cpp.files import QUANTS
        from nomoat.serving.engines import EngineHost

        if self.quant not in QUANTS:
            raise UsageError(f"--quant {self.quant}: choose one of {', '.join(QUANTS)}")
        cache = Path(platformdirs.user_cache_dir("nomoat"))
        return EngineHost(cache, self.device, self.threads, quant=self.quant)


def takes_model(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of ModelOptions, which it gets as the argument `model`."""
    signature, hints = (
        inspect.signature(command, eval_str=True),
        get_type_hints(ModelOptions, include_extras=True),
    )
    own = [p for p in signature.parameters.values() if p.name != "model"]
    shared = [
        Parameter(f.name, Parameter.KEYWORD_ONLY, default=f.default, annotation=hints[f.name])
        for f in fields(ModelOptions)
    ]

    @functools.wraps(command)
    def run(**values: Any) -> None:
        model = ModelOptions(**{p.name: values.pop(p.name) for p in shared})
        command(model=model, **values)

    taken = [*shared, *(p.replace(kind=Parameter.KEYWORD_ONLY) for p in own)]
    run.__signature__ = signature.replace(parameters=taken)  # type: ignore[attr-defined]
    return run
