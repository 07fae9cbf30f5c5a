"""`nomoat adapter export | combine | diff`: what other programs and small variants need."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nomoat.serving.cli.options import AdapterOption, BaseOption, CommunityOption, found

if TYPE_CHECKING:
    from nomoat.aggregation.protocol.adapter import Adapter
    from nomoat.lora.export.model_card import CardFacts
    from nomoat.lora.export.order import Order
    from nomoat.serving.sources.find import Found

app = typer.Typer(add_completion=False)

AsJson = Annotated[bool, typer.Option("--json", help="One object on stdout.")]
RowsOption = Annotated[
    Path | None, typer.Option("--eval", help="Held-out rows to measure on: any data file.")
]
SeqLen = Annotated[int, typer.Option("--seq-len", min=8, help="Tokens of a row, at most.")]
Weights = Annotated[str, typer.Option(help="A factor for each, such as 1,0.5 (default: all 1).")]


@app.command()
def export(  # noqa: PLR0913, PLR0917 - a command's options are its parameters
    out: Annotated[Path, typer.Argument(help="A new folder.")],
    to: Annotated[
        str | None,
        typer.Option(help="peft, merged, gguf, phone, ollama, vllm, mlx or hub (default: peft)."),
    ] = None,
    which: Annotated[
        str | None, typer.Option(help="community@N, community or personal (default: the newest).")
    ] = None,
    number: Annotated[int | None, typer.Option("--version", help="As --which community@N.")] = None,
    folder: Annotated[
        Path | None, typer.Option("--dir", help="A community's folder, as --adapter.")
    ] = None,
    adapter: AdapterOption = None,
    community: CommunityOption = None,
    base: BaseOption = None,
    quant: Annotated[str, typer.Option(help="Of GGUF files: f32, f16, q8_0, q4_0.")] = "",
    base_id: Annotated[str, typer.Option(help="The base's id on the hub, for the card.")] = "",
    license_: Annotated[str, typer.Option("--license", help="Of the adapter.")] = "",
    check: Annotated[bool, typer.Option("--check/--no-check", help="Compare the result.")] = True,
) -> None:
    """Write an adapter for another program, compare it, and say how to go on from there."""
    from nomoat.lora.export.targets import export as write

    what = found(adapter or (str(folder) if folder is not None else None), community, base)
    wanted = which or (f"community@{number}" if number is not None else what.voice)
    voice = what.source.exact(wanted)
    order = _order(what, voice, to, out, quant)
    # Without --to, a plain PEFT folder is written: reading it back is exact.
    order = replace(
        order, facts=_facts(what, voice, base_id, license_), check=check and to is not None
    )
    done = write(order)
    for file in done.files:
        typer.echo(str(file))
    sys.stderr.write(f"{done.checked}\nnext: {done.then}\n")


def _order(what: Found, voice: str, to: str | None, out: Path, quant: str) -> Order:
    from nomoat.aggregation.errors import UsageError
    from nomoat.lora.export.model_card import CardFacts
    from nomoat.lora.export.order import ExportTarget, Order
    from nomoat.serving.sources.find import folder_of

    try:
        target = ExportTarget(to or "peft")
    except ValueError:
        raise UsageError(f"--to {to}: choose one of {', '.join(ExportTarget)}") from None
    if voice == "base":
        raise UsageError("there is no adapter here yet: only the base")
    return Order(
        target=target,
        out=out,
        name=_name(f"{what.source.title}-{voice}"),
        base=folder_of(what.base),
        base_name=what.base.name,
        base_hash=what.base.hash,
        adapter=what.source.load(voice),
        facts=CardFacts(voice, "", ""),
        text=what.source.card(voice),
        quant=quant,
    )


def _facts(what: Found, voice: str, base_id: str, license_: str) -> CardFacts:
    from nomoat.lora.export.model_card import CardFacts, is_hub_id

    named = what.base.name
    linked = named if "/" in named and is_hub_id(named) and not Path(named).exists() else ""
    losses = dict(what.source.losses(voice))
    title = f"{what.source.title} {voice}"
    return CardFacts(title, base_id or linked, license_ or what.base.license, losses=losses)


def _name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._") or "community"


@app.command()
def combine(  # noqa: PLR0913, PLR0917
    out: Annotated[Path, typer.Argument(help="A new PEFT folder.")],
    parts: Annotated[list[str], typer.Argument(help="Runs, communities, versions, PEFT folders.")],
    weights: Weights = "",
    rows: RowsOption = None,
    seq_len: SeqLen = 512,
    community: CommunityOption = None,
    base: BaseOption = None,
    as_json: AsJson = False,
) -> None:
    """Put adapters of one base side by side as one, exactly, and measure it before it is kept."""
    from nomoat.aggregation.errors import UsageError
    from nomoat.lora.export.side_by_side import side_by_side
    from nomoat.lora.model.adapter_folder import save_folder
    from nomoat.serving.sources.find import folder_of
    from nomoat.serving.variants.measuring import held_out

    if out.exists():
        raise UsageError(f"{out} exists already; choose another folder")
    if len(parts) < 2 or rows is None:
        raise UsageError("combine takes OUT, two adapters or more, and --eval ROWS to measure on")
    named = {part: _loaded(part, community, base) for part in parts}
    if len({what.base.hash for what, _ in named.values() if what.base.hash}) > 1:
        raise UsageError("the adapters were trained on different bases")
    first = next(iter(named.values()))[0]
    adapters = {part: adapter for part, (_, adapter) in named.items()}
    joined = side_by_side(tuple(adapters.values()), _weights(weights, len(adapters)))
    with held_out(rows, folder_of(first.base), seq_len) as measured:
        losses = measured.losses(adapters | {"together": joined})
    save_folder(joined, first.base.name, out, _combined_card(losses), first.base.hash)
    _tell_losses(losses, as_json)
    sys.stderr.write(f"next: nomoat chat --adapter {out} --base {first.base.place}\n")


@app.command()
def diff(  # noqa: PLR0913, PLR0917
    first: Annotated[str, typer.Argument(help="A version or folder.")],
    second: Annotated[str, typer.Argument(help="Another one of the same base.")],
    rows: RowsOption = None,
    by: Annotated[
        str | None, typer.Option(help="A field of the rows (a volunteer, a domain) to tell apart.")
    ] = None,
    prompts: Annotated[int, typer.Option(min=0, help="Questions of the rows to answer.")] = 20,
    tokens: Annotated[int, typer.Option(min=1, help="Of one answer, at most.")] = 48,
    seq_len: SeqLen = 512,
    community: CommunityOption = None,
    base: BaseOption = None,
    as_json: AsJson = False,
) -> None:
    """Compare two versions: layers that moved, losses on rows and by volunteer, answers."""
    from nomoat.aggregation.errors import UsageError
    from nomoat.serving.cli.tables import show
    from nomoat.serving.sources.find import folder_of
    from nomoat.serving.variants.difference import VersionDifference, by_volunteer
    from nomoat.serving.variants.distance import distances
    from nomoat.serving.variants.measuring import held_out

    if by and rows is None:
        raise UsageError(f"--by {by} is a field of the rows to measure on: name them with --eval")
    what, old = _loaded(first, community, base)
    other, new = _loaded(second, community, base)
    on_record = ((first, _on_record(what)), (second, _on_record(other)))
    found = VersionDifference(distances(old, new), by_volunteer(*on_record))
    if rows is not None:
        both = {first: old, second: new}
        with held_out(rows, folder_of(what.base), seq_len) as measured:
            groups = measured.losses_by(by, both) if by else {}
            losses, answers = measured.losses(both), measured.answers(both, prompts, tokens)
        found = replace(found, losses=losses, groups=groups, answers=tuple(answers))
    if as_json:
        sys.stdout.write(json.dumps(found.as_json(), ensure_ascii=False) + "\n")
        return
    show(found, first, second)


def _on_record(what: Found) -> Mapping[str, float]:
    return what.source.by_volunteer(what.source.exact(what.voice))


def _loaded(part: str, community: str | None, base: str | None) -> tuple[Found, Adapter]:
    from nomoat.aggregation.errors import UsageError

    what = found(part, community, base)
    voice = what.source.exact(what.voice)
    if voice == "base":
        raise UsageError(f"{part} has no adapter yet")
    return what, what.source.load(voice)


def _weights(text: str, count: int) -> list[float]:
    from nomoat.aggregation.errors import UsageError

    if not text:
        return [1.0] * count
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"--weights {text}: numbers with commas between them") from None
    if len(found) != count or not all(abs(value) < 1e6 for value in found):
        raise UsageError(f"--weights {text}: {count} adapters need {count} finite numbers")
    return found


def _combined_card(losses: dict[str, float]) -> str:
    lines = "".join(f"- {name}: {loss:.4f}\n" for name, loss in losses.items())
    return f"# Adapters side by side\n\nHeld-out loss, nats per token:\n\n{lines}"


def _tell_losses(losses: dict[str, float], as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps({"losses": losses}) + "\n")
        return
    for name, loss in losses.items():
        typer.echo(f"{loss:.4f}  {name}")
