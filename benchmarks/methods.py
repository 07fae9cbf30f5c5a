"""Every aggregation method on the same federations: which to use, and what it costs.

    python benchmarks/methods.py [--out FILE] [--cells topics,iid/equal] [--methods fedavg,rolora]
        [--seeds 0,1,2] [--quick] [--json | --table]
    python benchmarks/methods.py --out FILE --model DIR --data FILE --by FIELD

Cells are method × split of the rows (topics, iid, dirichlet:0.1; or --by) × ranks (equal 8, or
4, 8 and 16 going round) × seed, run by the simulation's engine without masks. Beside each place
stands pooled training on all rows: on as many as all volunteers together take (in more steps or
in larger batches: the better one counts), and on one volunteer's. Each finished cell is a line of
FILE: the same command goes on where it was interrupted. --table and --json print what is in FILE;
--table runs nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import platformdirs
from cells.plan import Cell, Setting, cells
from cells.results import ResultsFile, markdown, summary
from cells.running import run

from nomoat.aggregation.errors import NomoatError, UsageError
from nomoat.simulations.pocket import POCKET

USUAL_OUT = Path("runs/methods.jsonl")
QUICK = {"volunteers": 3, "rounds": 2, "local_steps": 1, "batch_size": 4, "eval_rows": 4}


def main() -> None:
    """Run what FILE lacks, then print it."""
    options = _options()
    try:
        with tempfile.TemporaryDirectory() as scratch:
            usual = Path(scratch) / "methods.jsonl" if options.quick else USUAL_OUT
            _main(options, options.out or usual)
    except (NomoatError, OSError) as problem:
        sys.exit(f"error: {problem}")
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on with the cells that are missing")


def _main(options: argparse.Namespace, out: Path) -> None:
    results = ResultsFile(out)
    if options.table:
        if not results.rows:
            raise UsageError(f"{out} holds no results: give the --out of a run")
    else:
        setting = _setting(options)
        results.check(setting)
        methods = _names(options.methods) or list(setting.methods)
        seeds = _seeds(options.seeds)
        asked = list(cells(setting, methods, _names(options.cells), seeds))
        _fill(results, setting, [cell for cell in asked if cell not in results.rows], options)
    print(json.dumps(summary(results.rows)) if options.json else markdown(results.rows))


def _fill(
    results: ResultsFile, setting: Setting, missing: list[Cell], options: argparse.Namespace
) -> None:
    note(f"{len(missing)} cells to run, {len(results.rows)} in {results.path}")
    cache = Path(platformdirs.user_cache_dir("nomoat")) / "pocket"
    started = time.perf_counter()
    done = run(setting, missing, options.workers, cache) if missing else iter(())
    for number, (cell, row) in enumerate(done, 1):
        results.add(setting, cell, row)
        said = row.get("impossible") or f"{row.get('losses', [row.get('equal_tokens')])[-1]:.4f}"
        left_s = (time.perf_counter() - started) / number * (len(missing) - number)
        note(f"{cell}: {said} (about {left_s / 60:.0f} min left)")


def _setting(options: argparse.Namespace) -> Setting:
    if (options.data == POCKET) != (options.by is None):
        raise UsageError("--data and --by go together: whose rows are whose?")
    given = {
        name: getattr(options, name)
        for name in ("volunteers", "rounds", "local_steps", "batch_size", "lr", "eval_rows")
        if getattr(options, name) is not None
    }
    setting = Setting(options.model, options.data, options.by)
    return replace(setting, **((QUICK if options.quick else {}) | given))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--out", type=Path, help=f"results, one JSON object a line; else {USUAL_OUT}"
    )
    parser.add_argument("--methods", default="", help="comma-separated; else all")
    parser.add_argument("--cells", default="", help="splits, ranks or split/ranks; else all")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--model", default=POCKET)
    parser.add_argument("--data", default=POCKET)
    parser.add_argument("--by", help="with --data: one volunteer per value of this field")
    for name in ("volunteers", "rounds", "local-steps", "batch-size", "eval-rows"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--lr", type=float)
    parser.add_argument("--workers", type=int, help="processes; else one per core")
    parser.add_argument("--quick", action="store_true", help="tiny federations: does it run?")
    parser.add_argument("--json", action="store_true", help="print one object on stdout")
    parser.add_argument("--table", action="store_true", help="only print what --out holds")
    return parser.parse_args()


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _seeds(text: str) -> list[int]:
    try:
        return [int(seed) for seed in _names(text)]
    except ValueError:
        raise UsageError(f"--seeds {text!r}: give numbers such as 0,1,2") from None


def note(text: str) -> None:
    """Progress, on stderr: stdout is for the result."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
