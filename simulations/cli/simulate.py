"""`nomoat simulate`: a whole federation on this machine."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(add_completion=False)

STARTED = time.monotonic()

Federation = {"rich_help_panel": "Federation"}
Data = {"rich_help_panel": "Model and data"}
Training = {"rich_help_panel": "Training"}
Server = {"rich_help_panel": "Server optimiser"}


@app.command()
def simulate(  # noqa: PLR0913, PLR0917 - a command's options are its parameters
    scenario: Annotated[Path | None, typer.Argument(help="Scenario in TOML.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Hugging Face folder or hub id.", **Data)
    ] = None,
    data: Annotated[str | None, typer.Option(help="File or folder.", **Data)] = None,
    by: Annotated[
        str | None, typer.Option(help="One volunteer per value of this field.", **Data)
    ] = None,
    volunteers: Annotated[
        int | None, typer.Option(help="How many (with --by: the largest).", **Data)
    ] = None,
    partition: Annotated[str | None, typer.Option(help="iid or dirichlet:ALPHA.", **Data)] = None,
    label: Annotated[str | None, typer.Option(help="Field that dirichlet skews.", **Data)] = None,
    eval_fraction: Annotated[
        float | None, typer.Option(help="Part of each volunteer's rows held out.", **Data)
    ] = None,
    eval_rows: Annotated[
        int | None, typer.Option(help="Held-out rows used, at most.", **Data)
    ] = None,
    rounds: Annotated[int | None, typer.Option(**Federation)] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="fedavg, ffa, rolora, fedsvd, fedrot, fedplora, fedask; without masks also "
            "flora, flexlora, fedex.",
            **Federation,
        ),
    ] = None,
    fraction: Annotated[
        float | None, typer.Option(help="Part of the volunteers asked.", **Federation)
    ] = None,
    dropout: Annotated[
        float | None, typer.Option(help="Probability to vanish in a round.", **Federation)
    ] = None,
    min_reports: Annotated[
        int | None, typer.Option(help="Fewer valid reports abandon a round.", **Federation)
    ] = None,
    secure: Annotated[
        bool | None,
        typer.Option("--secure/--no-secure", help="Mask every update.", **Federation),
    ] = None,
    clip: Annotated[
        float | None, typer.Option(help="Bound on each value of an update.", **Federation)
    ] = None,
    weight_cap: Annotated[
        int | None, typer.Option(help="Most tokens that count as weight.", **Federation)
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option(help="Relative rise of loss accepted.", **Federation)
    ] = None,
    personal: Annotated[
        str | None, typer.Option(help="none, local-B or adapter: what stays at home.", **Federation)
    ] = None,
    server_optimizer: Annotated[
        str | None, typer.Option(help="plain, momentum, fedadam or fedyogi.", **Server)
    ] = None,
    server_lr: Annotated[
        float | None, typer.Option(help="1; adaptive optimisers: 0.01.", **Server)
    ] = None,
    server_momentum: Annotated[float | None, typer.Option(help="0.9.", **Server)] = None,
    server_beta1: Annotated[float | None, typer.Option(help="0.9.", **Server)] = None,
    server_beta2: Annotated[float | None, typer.Option(help="0.99.", **Server)] = None,
    server_tau: Annotated[float | None, typer.Option(help="0.001.", **Server)] = None,
    seed: Annotated[int | None, typer.Option(**Federation)] = None,
    baselines: Annotated[
        bool | None,
        typer.Option("--baselines/--no-baselines", help="Also alone and pooled.", **Federation),
    ] = None,
    local_steps: Annotated[int | None, typer.Option(**Training)] = None,
    local_epochs: Annotated[int | None, typer.Option(help="Instead of steps.", **Training)] = None,
    batch_size: Annotated[int | None, typer.Option(**Training)] = None,
    seq_len: Annotated[int | None, typer.Option(help="Tokens.", **Training)] = None,
    lr: Annotated[float | None, typer.Option(**Training)] = None,
    lr_schedule: Annotated[
        str | None, typer.Option(help="constant, cosine or warmup, over the rounds.", **Training)
    ] = None,
    prox: Annotated[
        float | None, typer.Option(help="FedProx: pull towards the broadcast.", **Training)
    ] = None,
    optimizer_state: Annotated[
        str | None, typer.Option(help="reset or keep AdamW's moments each round.", **Training)
    ] = None,
    rank: Annotated[
        int | None, typer.Option(help="The community's (8, or the largest of --ranks).", **Training)
    ] = None,
    ranks: Annotated[
        str | None, typer.Option(help="Volunteers': 4,8,16 or 4:0.5,8:0.3,16:0.2.", **Training)
    ] = None,
    alpha: Annotated[float | None, typer.Option(**Training)] = None,
    target_modules: Annotated[
        str | None, typer.Option(help="Comma-separated, or all-linear.", **Training)
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the results.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on in --out.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Summary on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Simulate a federation; without arguments the pocket one, which needs nothing but Python."""
    given = {name: value for name, value in locals().items() if name not in _NOT_SETTINGS}
    if target_modules is not None:
        given["target_modules"] = tuple(name.strip() for name in target_modules.split(","))
    _simulate(scenario, given, _Shell(workers, out, resume, as_json, quiet))


_NOT_SETTINGS = {"scenario", "workers", "out", "resume", "as_json", "quiet", "target_modules"}


class _Shell:
    """What of a command line is not the scenario."""

    def __init__(
        self, workers: int | None, out: Path | None, resume: bool, as_json: bool, quiet: bool
    ) -> None:
        self.workers, self.out, self.resume = workers, out, resume
        self.as_json, self.quiet = as_json, quiet


def _simulate(file: Path | None, given: dict[str, Any], shell: _Shell) -> None:
    from rich.console import Console

    from nomoat.aggregation.errors import NomoatError
    from nomoat.simulations.report.live_table import LiveTable, Silence
    from nomoat.simulations.run import Machine, simulate

    scenario, folder = _open(file, given, shell)
    console = Console(stderr=True)
    machine = Machine(shell.workers, _pocket_cache(), STARTED)
    if shell.quiet:
        result = simulate(scenario, folder, machine, Silence())
    else:
        with LiveTable(console, scenario.rounds, folder.base_loss()) as table:
            result = simulate(scenario, folder, machine, table)
    if shell.as_json:
        json.dump(result.summary(), sys.stdout)
        sys.stdout.write("\n")
    elif not shell.quiet:
        console.print(f"\n{result.sentence()}\n", markup=False, highlight=False)
        console.print(f"report   {folder.report}", markup=False, highlight=False, soft_wrap=True)
        console.print(f"adapter  {folder.adapter}", markup=False, highlight=False, soft_wrap=True)
    if not any(record["committed"] for record in result.records[1:]):
        reason = result.records[-1]["reason"]
        raise NomoatError(f"no round was committed; the last one: {reason} (see {folder.metrics})")


def _open(file: Path | None, given: dict[str, Any], shell: _Shell) -> Any:
    from nomoat.aggregation.errors import UsageError
    from nomoat.simulations.run_folder import RunFolder
    from nomoat.simulations.scenario import resolve

    if shell.resume:
        if shell.out is None:
            raise UsageError("--resume needs --out: the folder of the run to go on with")
        if file is not None or any(value is not None for value in given.values()):
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
