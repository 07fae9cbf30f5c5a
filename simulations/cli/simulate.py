"""`nomoat simulate`: a whole federation on this machine."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nomoat.server.cli.setting_options import options_of, settings_command, takes_settings

if TYPE_CHECKING:
    import click
    from rich.console import Console

    from nomoat.simulations.report.results import Result
    from nomoat.simulations.run_folder import RunFolder
    from nomoat.simulations.scenario import Scenario

app = typer.Typer(add_completion=False)

STARTED = time.monotonic()


def simulate_options() -> list[click.Parameter]:
    """One option for each setting of a scenario."""
    from nomoat.server.rounds import settings
    from nomoat.simulations.scenario import DataSettings, Scenario

    return [
        *options_of(DataSettings, "Model and data"),
        *options_of(Scenario, "Federation"),
        *options_of(settings.RoundSettings, "Federation", leave_out=("min_reports",)),
        *options_of(settings.ServerOptimizerSettings, "Server optimiser"),
        *options_of(settings.AdapterSettings, "Adapter"),
        *options_of(settings.TrainingSettings, "What a volunteer does in a round"),
    ]


@app.command(cls=settings_command(simulate_options))
@takes_settings
def simulate(  # noqa: PLR0913, PLR0917 - a command's options are its parameters
    scenario: Annotated[Path | None, typer.Argument(help="Scenario in TOML.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes.")] = None,
    together: Annotated[
        int | None,
        typer.Option(min=1, help="Volunteers trained at once, at most (default: as is faster)."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the results.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on in --out.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Summary on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
    **given: Any,
) -> None:
    """Simulate a federation; without arguments the pocket one, which needs nothing but Python."""
    _simulate(scenario, given, _Shell(workers, together, out, resume, as_json, quiet))


@dataclass(frozen=True)
class _Shell:
    """The part of a command line that is not the scenario."""

    workers: int | None
    together: int | None
    out: Path | None
    resume: bool
    as_json: bool
    quiet: bool


def _simulate(file: Path | None, given: dict[str, Any], shell: _Shell) -> None:
    from rich.console import Console

    from nomoat.aggregation.errors import NomoatError
    from nomoat.simulations.failures import failure_lines
    from nomoat.simulations.report.live_table import LiveTable, Silence
    from nomoat.simulations.run import RunResources, simulate

    scenario, folder = _open(file, given, shell)
    console = Console(stderr=True)
    machine = RunResources(shell.workers, _pocket_cache(), STARTED, shell.together)
    if shell.quiet:
        result = simulate(scenario, folder, machine, Silence())
    else:
        head = tuple(filter(None, (f"run      {folder.path}", _skew(scenario))))
        with LiveTable(console, scenario.rounds, folder.base_loss(), head) as table:
            result = simulate(scenario, folder, machine, table)
    if shell.as_json:
        json.dump(result.summary(), sys.stdout)
        sys.stdout.write("\n")
    elif not shell.quiet:
        _say(console, f"\n{result.sentence()}\n")
        _say(console, *_facts(result, folder))
    _say(console, result.undrawn)
    if not result.committed:
        last = result.records[-1]
        why = "; ".join((last["reason"], *failure_lines([last], most=1)))
        raise NomoatError(f"no round was committed; the last one: {why} (see {folder.metrics})")


def _skew(scenario: Scenario) -> str:
    """Say what a Dirichlet partition skews where no field was named."""
    from nomoat.simulations.pocket import POCKET

    if scenario.partition == "iid" or scenario.by or scenario.label or scenario.data == POCKET:
        return ""
    return "skew     of how many rows each has alone: --label FIELD skews what they are"


def _say(console: Console, *lines: str) -> None:
    for line in filter(None, lines):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _facts(result: Result, folder: RunFolder) -> list[str]:
    """Lines a terminal shows of a run beside its sentence: its rows, and where its files are."""
    from nomoat.simulations.failures import failure_lines

    first, *further = result.row_lines()
    rows = [f"rows     {first}", *(f"         {line}" for line in further)]
    report = f"report   {folder.report}" if folder.report.exists() else ""
    adapter = f"adapter  {folder.adapter}" if folder.adapter.exists() else ""
    talk = f"talk     nomoat chat --adapter {folder.path} --compare" if adapter else ""
    failed = [f"failed   {line}" for line in failure_lines(result.records)]
    seq_len = f"seq-len  {result.scenario.seq_len}"
    return [*rows, *failed, seq_len, *result.notes, report, adapter, talk]


def _open(file: Path | None, given: dict[str, Any], shell: _Shell) -> Any:
    from nomoat.aggregation.errors import UsageError
    from nomoat.simulations.run_folder import RunFolder
    from nomoat.simulations.scenario import resolve

    if shell.resume:
        if shell.out is None:
            raise UsageError("--resume needs --out: the folder of the run to go on with")
        if file is not None or given:
            raise UsageError("--resume takes its settings from the run: give only --out")
        folder, scenario = RunFolder.reopen(shell.out)
        return scenario, folder
    scenario = resolve(file, given)
    out = shell.out or _fresh_folder(Path("runs"))
    return scenario, RunFolder.create(out, scenario, sys.argv[1:])


def _fresh_folder(parent: Path) -> Path:
    """runs/2026-01-31-120000, or with a number after it if that is taken."""
    stamp = time.strftime("%Y-%m-%d-%H%M%S")
    taken = 0
    while (folder := parent / (f"{stamp}-{taken}" if taken else stamp)).exists():
        taken += 1
    return folder


def _pocket_cache() -> Path:
    import platformdirs

    return Path(platformdirs.user_cache_dir("nomoat")) / "pocket"
