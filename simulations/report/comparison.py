"""Finished runs side by side: those that differ in nothing but the seed become one line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment

from nomoat.aggregation.errors import UsageError
from nomoat.simulations.report import plots
from nomoat.simulations.report.page import human_bytes
from nomoat.simulations.report.seed_statistics import (
    fall,
    mean,
    number,
    rounds_to,
    spread,
    with_spread,
)
from nomoat.simulations.run_folder import RunFolder
from nomoat.simulations.scenario import Scenario

SHARE = 0.95  # of the pooled gain
NO_DIFFERENCE = {"seed": 0, "baselines": False}  # what two runs of one line may differ in

Records = list[dict[str, Any]]


@dataclass(frozen=True)
class FinishedRun:
    """A finished run: its settings, the objects of metrics.jsonl, the object of summary.json."""

    path: Path
    scenario: Scenario
    records: Records
    summary: dict[str, Any]

    @property
    def losses(self) -> list[float | None]:
        """Held-out loss after every round, from round 0 (the base model)."""
        return [record["loss"] for record in self.records]

    @property
    def pooled_loss(self) -> float | None:
        """Of the pooled baseline (one volunteer's number of steps), if it was measured."""
        return self.summary["pooled"]["loss"] if "pooled" in self.summary else None


@dataclass(frozen=True)
class Line:
    """Runs that differ in their seeds alone. Means over them; losses in nats per trained token.

    fall: of the loss since round 0. Spreads are sample standard deviations, None of a single run;
    that of the fall is the one to judge by, since every seed holds out other rows. rounds_to_95:
    rounds until 95 % of the pooled baseline's gain was reached; None where that was not measured,
    is no gain, or was not reached with every seed. bytes_up, bytes_down: per volunteer and round.
    server_s: seconds of a round from the last "ready" to the new adapter, answers of simulated
    volunteers included.
    """

    method: str
    settings: dict[str, Any]  # those in which the lines differ
    seeds: list[int]
    base_loss: float | None
    loss: float | None
    spread: float | None
    fall: float | None
    fall_spread: float | None
    personal_loss: float | None
    pooled_loss: float | None
    rounds_to_95: float | None
    bytes_up: float | None
    bytes_down: float | None
    server_s: float | None
    runs: list[str]
    curves: list[list[float | None]]  # per seed, loss by round

    @property
    def name(self) -> str:
        """Method and what else tells this line from the others."""
        return " ".join([self.method, *(f"{k}={v}" for k, v in self.settings.items())])


def read(path: Path) -> FinishedRun:
    """The run in a folder; UsageError, in one line, if there is none, or none that has ended."""
    if not path.is_dir():
        raise UsageError(f"{path} is no folder: give the folders of runs (nomoat simulate --out)")
    if not RunFolder(path).config.exists():
        raise UsageError(f"{path} holds no run: config.toml is missing")
    folder, scenario = RunFolder.reopen(path)
    records = folder.records()
    if not folder.summary.exists():
        done = max(len(records) - 1, 0)
        raise UsageError(
            f"{path} is not finished ({done} of {scenario.rounds} rounds): go on with "
            f"nomoat simulate --resume --out {path}"
        )
    damaged = UsageError(f"{path} is damaged: summary.json and metrics.jsonl do not fit")
    if len(records) != scenario.rounds + 1:
        raise damaged
    try:
        run = FinishedRun(path, scenario, records, json.loads(folder.summary.read_text("utf-8")))
        _line([run], {})  # all that a line takes must be there
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
        raise damaged from None
    return run


def compare(runs: Sequence[FinishedRun]) -> list[Line]:
    """One line per setting, the lowest loss first; UsageError if a seed is there twice."""
    groups: dict[str, list[FinishedRun]] = {}
    for run in runs:
        key = run.scenario.model_copy(update=NO_DIFFERENCE).model_dump_json()
        groups.setdefault(key, []).append(run)
    for group in groups.values():
        _refuse_twins(group)
    differing = _differing([group[0].scenario for group in groups.values()])
    lines = [_line(group, differing) for group in groups.values()]
    return sorted(lines, key=lambda line: (line.loss is None, line.loss, line.name))


def as_json(lines: Sequence[Line]) -> dict[str, Any]:
    """The object of --json."""
    return {"lines": [asdict(line) for line in lines]}


def cells(line: Line) -> tuple[str, ...]:
    """The line as the table's texts, in the order of HEADINGS."""
    rounds = "–" if line.rounds_to_95 is None else f"{line.rounds_to_95:.1f}"
    return (
        line.method,
        ", ".join(f"{k} {v}" for k, v in line.settings.items()) or "–",
        str(len(line.seeds)),
        number(line.base_loss),
        with_spread(line.loss, line.spread),
        with_spread(line.fall, line.fall_spread),
        number(line.personal_loss),
        number(line.pooled_loss),
        rounds,
        "–" if line.bytes_up is None else human_bytes(line.bytes_up),
        "–" if line.bytes_down is None else human_bytes(line.bytes_down),
        number(line.server_s),
    )


HEADINGS = (
    "method",
    "settings that differ",
    "seeds",
    "base",
    "loss",
    "fall",
    "own part",
    "pooled",
    "rounds to 95 %",
    "up",
    "down",
    "server, s",
)
CAPTION = "losses held out, nats per token; up and down per volunteer and round"
LEFT = 2  # headings of texts; the others are of numbers


def page(lines: Sequence[Line]) -> str:
    """The page as HTML: no script, no network, every text escaped."""
    environment = Environment(autoescape=True, trim_blocks=True)
    template = files("nomoat.simulations.report").joinpath("compare.html.j2").read_text("utf-8")
    return environment.from_string(template).render(
        headings=HEADINGS,
        left=LEFT,
        rows=[cells(line) for line in lines],
        curve=plots.svg(plots.comparison([(line.name, line.curves) for line in lines])),
        runs=[(line.name, list(zip(line.seeds, line.runs, strict=True))) for line in lines],
    )


def _line(runs: Sequence[FinishedRun], differing: dict[str, Any]) -> Line:
    runs = sorted(runs, key=lambda run: run.scenario.seed)
    settings = runs[0].scenario.model_dump()
    finals = [run.losses[-1] for run in runs]
    falls = [fall(run.losses) for run in runs]
    ended = [run.records[1:] for run in runs]
    return Line(
        runs[0].scenario.method,
        {k: "–" if settings[k] is None else settings[k] for k in differing if k != "method"},
        [run.scenario.seed for run in runs],
        mean([run.losses[0] for run in runs]),
        mean(finals),
        spread(finals),
        mean(falls),
        spread(falls),
        mean([run.summary.get("personal", {}).get("loss") for run in runs]),
        mean([run.pooled_loss for run in runs]),
        _rounds_to_share(runs),
        mean([run.summary["bytes_up_per_volunteer_per_round"] for run in runs]),
        mean([run.summary["bytes_down_per_volunteer_per_round"] for run in runs]),
        mean([r["seconds"].get("aggregating", 0.0) for records in ended for r in records]),
        [str(run.path) for run in runs],
        [run.losses for run in runs],
    )


def _rounds_to_share(runs: Sequence[FinishedRun]) -> float | None:
    """The mean over seeds that all reached it, of those whose pooled baseline was measured."""
    measured = [run for run in runs if run.pooled_loss is not None]
    reached = [rounds_to(run.losses, run.pooled_loss, SHARE) for run in measured]
    return None if None in reached else mean(reached)


def _differing(scenarios: Sequence[Scenario]) -> dict[str, Any]:
    every = [s.model_dump(exclude=set(NO_DIFFERENCE)) for s in scenarios]
    return {k: v for k, v in every[0].items() if any(one[k] != v for one in every)} if every else {}


def _refuse_twins(group: Sequence[FinishedRun]) -> None:
    by_seed: dict[int, FinishedRun] = {}
    for run in group:
        twin = by_seed.setdefault(run.scenario.seed, run)
        if twin is not run:
            raise UsageError(
                f"{twin.path} and {run.path} are the same run (seed {run.scenario.seed}): give one"
            )
