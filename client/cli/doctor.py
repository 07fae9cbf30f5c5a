"""`nomoat doctor`: looks for what is wrong, and prints what the checks say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nomoat.client.cli import options
from nomoat.client.cli.output import say_or_json

if TYPE_CHECKING:
    from nomoat.client.doctor.checks import CheckResult

app = typer.Typer(add_completion=False)

MARKS = {"ok": "ok", "warning": "!", "problem": "✗", "unknown": "?"}


@app.command()
def doctor(
    community: options.Which = None,
    as_json: options.AsJson = False,
    gpu: Annotated[
        bool, typer.Option("--gpu", help="Try the GPU in everything that is done with one: 6 min.")
    ] = False,
) -> None:
    """Look for what is wrong, and say the one command that mends it."""
    if gpu:
        raise typer.Exit(_try_gpu(as_json))
    from nomoat.client.doctor.checks import examine
    from nomoat.client.doctor.symptoms import symptoms
    from nomoat.client.home import Home

    home = Home.find()
    folder = home.choose(community) if home.joined() else None
    results = examine(symptoms(home, folder))
    say_or_json(as_json, doctor_json(results), render_doctor(results))
    raise typer.Exit(exit_code(results))


def _try_gpu(as_json: bool) -> int:
    """Print the table of what this machine's GPU does, each row as it ends; 1 if one is amiss."""
    import json
    import tempfile
    from pathlib import Path

    from nomoat.lora.gpu_check import table
    from nomoat.lora.model.bases.pocket import FOLDER

    found = []
    with tempfile.TemporaryDirectory(prefix="nomoat-gpu-") as folder:
        for row in table.check("auto", str(FOLDER), Path(folder), table.all_rows()):
            found.append(row)
            if not as_json:
                typer.echo(table.shown(row))
    if as_json:
        typer.echo(json.dumps(table.as_json(found)))
    return 0 if table.passed(found) else 1


def exit_code(results: Sequence[CheckResult]) -> int:
    """1 if something is broken, else 0."""
    from nomoat.client.doctor.checks import CheckStatus

    return int(any(result.status is CheckStatus.BAD for result in results))


def render_doctor(results: Sequence[CheckResult]) -> str:
    """One line a check, the mending command below it; the summary last."""
    width = max((len(result.check) for result in results), default=0)
    lines = []
    for result in results:
        lines.append(f"{MARKS[result.status.value]:>2}  {result.check:<{width}}  {result.text}")
        if result.mend:
            lines.append(f"    {'':<{width}}  → {result.mend}")
    return "\n".join([*lines, _summary(results)])


def _summary(results: Sequence[CheckResult]) -> str:
    from nomoat.client.doctor.checks import CheckStatus, worst

    bad = sum(result.status is CheckStatus.BAD for result in results)
    if bad:
        return f"{bad} problem{'s' if bad > 1 else ''} to mend"
    if worst(tuple(results)) is CheckStatus.GOOD:
        return "all is well"
    return "nothing is broken; look at the lines marked ! and ?"


def doctor_json(results: Sequence[CheckResult]) -> list[dict[str, Any]]:
    """For `--json`."""
    return [
        {"check": f.check, "verdict": f.status.value, "text": f.text, "mend": f.mend}
        for f in results
    ]
