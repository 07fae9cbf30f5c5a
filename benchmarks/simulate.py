"""A simulated federation, as whole processes, against what a user would run instead.

    python benchmarks/simulate.py [--quick] [--json] [--repeats N] [--workers N] [--without-ray]

Every program runs the same pocket federation: same model, rows, steps, evaluations and number of
single-threaded worker processes; there are no figures unless they end with the same loss.

    ours         nomoat simulate as it comes: secure aggregation, report and all
    ours, open   the same with --no-secure, which is all that the others do
    bare         PyTorch + transformers + peft + torch.distributed, no federation code
    bare (lora)  the same with nomoat.lora's training: the work itself, which the table subtracts
    ray          the same with nomoat.lora's training as a Flower app on Flower's own simulation

Times are medians of whole-process wall-clock times, the programs taking turns. Memory is the
largest sampled sum of proportional set sizes over the process tree, in a run of its own.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nomoat.lora.workers.cores import default_workers
from rivals.hands import HANDS_VARIABLE
from rivals.plan import PLAN_VARIABLE
from rivals.process_tree import CommandFailed, Measured, measure

DEFAULT: dict[str, Any] = {}  # what `nomoat simulate` runs when nothing is said
MANY: dict[str, Any] = {"volunteers": 100, "local_steps": 1, "rounds": 3}
QUICK: dict[str, Any] = {"volunteers": 3, "local_steps": 1, "rounds": 1, "eval_rows": 8}
QUICK_MANY: dict[str, Any] = {"volunteers": 6, "local_steps": 1, "rounds": 1, "eval_rows": 8}

OURS, OURS_OPEN, BARE, BARE_LORA, RAY = "ours", "ours, open", "bare", "bare (lora)", "ray"
OURS_MANY, OURS_MANY_OPEN = "ours, many", "ours, many, open"
BARE_LORA_MANY, RAY_MANY = "bare (lora), many", "ray, many"
SAMPLED = (OURS, BARE, RAY)  # the programs whose memory is a figure
SAMPLE_EVERY_S = 0.2
SAME_LOSS = 2e-4  # relative: same first adapter and batches, averages rounded differently
ALIKE_LOSS = 0.02  # bare draws another first adapter and other batches
MB = 1e6


@dataclass(frozen=True)
class Program:
    """One thing to time: a command, and what it needs in its environment."""

    name: str
    command: tuple[str, ...]
    environment: dict[str, str]
    writes_to: Path | None = None  # a folder that must be new in each run

    def run(self, turn: str, sample_every_s: float | None = None) -> Measured:
        """Run it once; `turn` tells its runs apart."""
        out = () if self.writes_to is None else ("--out", str(self.writes_to / turn))
        return measure((*self.command, *out), self.environment, sample_every_s)


@dataclass
class Results:
    """All runs of all programs, by name."""

    timed: dict[str, list[Measured]] = field(default_factory=dict)
    sampled: dict[str, Measured] = field(default_factory=dict)

    def seconds(self, name: str) -> float | None:
        """Median whole-process time."""
        runs = self.timed.get(name)
        return statistics.median(run.seconds for run in runs) if runs else None

    def ratio(self, above: str, below: str) -> float | None:
        """Return how many times as long one program takes as another."""
        dividend, divisor = self.seconds(above), self.seconds(below)
        return round(dividend / divisor, 4) if dividend and divisor else None

    def driving_ratio(self, above: str, below: str, floor: str) -> float | None:
        """Return how many times as long one program takes as another beyond the work, done bare."""
        dividend, divisor = self.above(above, floor), self.above(below, floor)
        return round(dividend / divisor, 4) if dividend and divisor else None

    def above(self, name: str, floor: str) -> float | None:
        """Median seconds a program takes beyond the work itself, which `floor` does bare."""
        mine, least = self.seconds(name), self.seconds(floor)
        return round(mine - least, 3) if mine and least else None

    def peak_mb(self, name: str) -> float | None:
        """Largest sampled memory, 10⁶ bytes."""
        run = self.sampled.get(name)
        return round(run.peak_bytes / MB, 1) if run and run.peak_bytes else None

    def loss(self, name: str) -> float:
        """The macro held-out loss a program ended with, nats per token."""
        printed = json.loads(self.timed[name][-1].stdout.splitlines()[-1])
        return float(
            printed["community"]["loss"] if "community" in printed else printed["losses"][-1]
        )


def programs(scratch: Path, workers: int, quick: bool, ray: bool) -> list[Program]:
    """Return the programs that take turns; each federation is prepared once, for all who run it."""
    federation, many = (QUICK, QUICK_MANY) if quick else (DEFAULT, MANY)
    scratch.mkdir(exist_ok=True)
    plan = _plan(scratch / "plan", federation, workers)
    found = [_ours(OURS, federation, workers, scratch), _rival(BARE, "bare", plan, "plain")]
    if not quick:
        found.append(_ours(OURS_OPEN, federation, workers, scratch, "--no-secure"))
        found.append(_rival(BARE_LORA, "bare", plan, "nomoat"))
    if ray:
        plan_many = _plan(scratch / "plan-many", many, workers)
        found.append(_rival(RAY, "ray_run", plan, "nomoat", scratch))
        found.append(_ours(OURS_MANY, many, workers, scratch))
        if not quick:
            found.append(_ours(OURS_MANY_OPEN, many, workers, scratch, "--no-secure"))
            found.append(_rival(BARE_LORA_MANY, "bare", plan_many, "nomoat"))
        found.append(_rival(RAY_MANY, "ray_run", plan_many, "nomoat", scratch))
    return found


def _ours(
    name: str, federation: dict[str, Any], workers: int, scratch: Path, *more: str
) -> Program:
    options = [f"--{key.replace('_', '-')}={value}" for key, value in federation.items()]
    fixed = ("simulate", "--json", "--quiet", f"--workers={workers}")
    command = (sys.executable, "-m", "nomoat", *fixed, *options, *more)
    return Program(name, command, _environment(), scratch / f"runs of {name}")


def _rival(name: str, module: str, plan: Path, hands: str, home: Path | None = None) -> Program:
    extra = {PLAN_VARIABLE: str(plan), HANDS_VARIABLE: hands}
    if home is not None:
        extra |= {"FLWR_HOME": str(home / "flwr"), "RAY_TMPDIR": str(home)}
    command = (sys.executable, "-W", "ignore", "-m", f"rivals.{module}")
    return Program(name, command, _environment() | extra)


def _environment() -> dict[str, str]:
    """The user's, with the rivals importable, no network, and byte code cached as it always is."""
    unwanted = {"PYTHONDONTWRITEBYTECODE", "OMP_NUM_THREADS", "MKL_NUM_THREADS"}
    kept = {name: value for name, value in os.environ.items() if name not in unwanted}
    here = str(Path(__file__).resolve().parent)
    quiet = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    return kept | quiet | {"PYTHONPATH": here}


def _plan(folder: Path, federation: dict[str, Any], workers: int) -> Path:
    folder.mkdir()
    settings = json.dumps(federation | {"workers": workers})
    command = [sys.executable, "-m", "rivals.plan", str(folder), settings]
    done = subprocess.run(command, env=_environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise CommandFailed(f"the federation could not be prepared:\n{done.stderr[-2000:]}")
    return folder / "plan.json"


def warm_up(found: Sequence[Program]) -> None:
    """Fill the caches a second run finds full: byte code, files, fonts, the corpus."""
    for program in found:
        _say(f"warming up: {program.name}")
        program.run("warm-up")


def take_turns(found: Sequence[Program], repeats: int, sample_always: bool) -> Results:
    """Run each program `repeats` times, taking turns; then sample memory in runs of their own.

    `sample_always` samples in the timed runs instead: cheaper, and good for no figures.
    """
    results = Results()
    for turn in range(repeats):
        for program in found:
            run = program.run(f"turn-{turn}", SAMPLE_EVERY_S if sample_always else None)
            results.timed.setdefault(program.name, []).append(run)
            results.sampled[program.name] = run
            _say(f"turn {turn + 1} of {repeats}: {program.name} {run.seconds:.1f} s")
    for program in found:
        if program.name in SAMPLED and not sample_always:
            results.sampled[program.name] = program.run("memory", SAMPLE_EVERY_S)
            _say(f"memory: {program.name} {results.peak_mb(program.name)} MB")
    return results


def check_same_work(results: Results) -> dict[str, float]:
    """Every program's final loss; CommandFailed if one differs: then its time says nothing."""
    losses = {name: results.loss(name) for name in results.timed}
    for name, loss in losses.items():
        ours = losses[OURS_MANY if "many" in name else OURS]
        if abs(loss / ours - 1) > (ALIKE_LOSS if name == BARE else SAME_LOSS):
            raise CommandFailed(f"{name} ended with loss {loss:.4f}, nomoat with {ours:.4f}")
    return losses


def summary(results: Results, federation: dict[str, Any]) -> dict[str, Any]:
    """The object `--json` prints; what needs Ray is null without it."""
    return {
        "overhead_ratio": results.ratio(OURS, BARE),
        "overhead_ratio_same_training": results.ratio(OURS_OPEN, BARE_LORA),
        "secure_ratio": results.ratio(OURS, OURS_OPEN),
        "ray_ratio": results.ratio(RAY, OURS),
        "ray_ratio_100": results.ratio(RAY_MANY, OURS_MANY),
        "ray_ratio_open": results.ratio(RAY, OURS_OPEN),
        "ray_ratio_100_open": results.ratio(RAY_MANY, OURS_MANY_OPEN),
        "ray_driving_ratio_100": results.driving_ratio(RAY_MANY, OURS_MANY, BARE_LORA_MANY),
        "ray_driving_ratio_100_open": results.driving_ratio(
            RAY_MANY, OURS_MANY_OPEN, BARE_LORA_MANY
        ),
        "peak_mb": results.peak_mb(OURS),
        "bare_peak_mb": results.peak_mb(BARE),
        "ray_peak_mb": results.peak_mb(RAY),
        "peak_is": f"10^6 bytes of PSS over the process tree, sampled every {SAMPLE_EVERY_S} s",
        "losses": check_same_work(results),
        "seconds": {name: [round(r.seconds, 3) for r in rs] for name, rs in results.timed.items()},
        "above_the_work_s": {
            name: results.above(name, BARE_LORA_MANY if "many" in name else BARE_LORA)
            for name in results.timed
        },
        **federation,
    }


def table(found: dict[str, Any]) -> str:
    """The same for a person."""
    lines = [
        f"{'':17s} {'median s':>9s} {'above work':>10s} {'peak MB':>8s} {'final loss':>11s}   all s"
    ]
    peaks = {OURS: found["peak_mb"], BARE: found["bare_peak_mb"], RAY: found["ray_peak_mb"]}
    for name, seconds in found["seconds"].items():
        above = found["above_the_work_s"][name]
        extra = "" if above is None else f"{above:.2f}"
        peak = peaks.get(name) or ""
        loss = found["losses"].get(name)
        shown = "" if loss is None else f"{loss:.4f}"
        times = " ".join(f"{value:.1f}" for value in seconds)
        median = statistics.median(seconds)
        lines.append(f"{name:17s} {median:9.2f} {extra:>10s} {peak:>8} {shown:>11s}   {times}")
    wanted = (
        ("overhead_ratio", "ours / bare, at most 1.10"),
        ("overhead_ratio_same_training", "ours, open / bare (lora)"),
        ("secure_ratio", "ours / ours, open"),
        ("ray_ratio", "ray / ours, at least 1.5"),
        ("ray_ratio_open", "ray / ours, open"),
        ("ray_ratio_100", "ray / ours with 100 volunteers of one step, at least 5"),
        ("ray_ratio_100_open", "ray / ours, open, with 100 volunteers of one step"),
        ("ray_driving_ratio_100", "the same of the time beyond the work, as bare (lora) does it"),
        ("ray_driving_ratio_100_open", "the same with --no-secure"),
        ("peak_mb", "ours, at most half of ray_peak_mb"),
        ("ray_peak_mb", ""),
    )
    lines += ["", *(f"{name:30s} {found[name]!s:>9s}   {why}" for name, why in wanted)]
    return "\n".join([*lines, f"memory: {found['peak_is']}"])


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


def _ray_missing() -> bool:
    try:
        importlib.metadata.version("ray")
    except importlib.metadata.PackageNotFoundError:
        return True
    return False


def _versions() -> dict[str, str | None]:
    names = ("nomoat", "flwr", "ray", "torch", "transformers", "peft")
    known = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
    return {name: known.get(name) for name in names}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny sizes: a smoke test, no figures")
    parser.add_argument("--json", action="store_true", help="one object on stdout")
    parser.add_argument("--repeats", type=int, default=None)
    parser.add_argument("--workers", type=int, default=default_workers())
    parser.add_argument("--without-ray", action="store_true")
    options = parser.parse_args()
    ray = not options.without_ray
    if ray and _ray_missing():
        _say("Ray is not installed, its parts are skipped: pip install 'flwr[simulation]'")
        ray = False
    repeats = options.repeats or (1 if options.quick else 3)
    with tempfile.TemporaryDirectory(prefix="nomoat-") as scratch:
        if not options.quick:
            warm_up(programs(Path(scratch) / "warm-up", options.workers, quick=True, ray=ray))
        found = programs(Path(scratch) / "timed", options.workers, options.quick, ray)
        results = take_turns(found, repeats, sample_always=options.quick)
    about = {
        "workers": options.workers,
        "repeats": repeats,
        "quick": options.quick,
        "federation": QUICK if options.quick else DEFAULT,
        "many": QUICK_MANY if options.quick else MANY,
        "versions": _versions(),
        "load_average": os.getloadavg(),
    }
    found_summary = summary(results, about)
    sys.stdout.write((json.dumps(found_summary) if options.json else table(found_summary)) + "\n")


if __name__ == "__main__":
    main()
