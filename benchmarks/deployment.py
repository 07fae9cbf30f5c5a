"""A real deployment on loopback: what a round costs beyond training, and what waiting costs.

    python benchmarks/deployment.py [--quick] [--json] [--rounds N] [--crowd N] [--without-stock]

Processes started through the commands people use: a coordinator and three volunteers with TLS, node
authentication and SQLite, an adapter of about a million values. Beside it, in the same run, a stock
Flower SuperLink, SuperNodes and `flwr run` doing the same three exchanges a round (train, report of
float32 values, evaluate), and a crowd of volunteers without a model against one coordinator.

    overhead     wall time from the end of one round to the end of the next, less the slowest
                 training; the first round is left out, in ours because its volunteers load the
                 base model
    stock_ratio  the stock round (its training takes no time) / our overhead, medians
    idle         a volunteer that has joined and waits; rested: one that has trained, 130 s later
    bytes        what the rounds' records say / what a packet capture counts
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deployed import growth, model, rounds
from deployed.community import NAMES
from deployed.growth import Crowd, Peak
from deployed.rounds import Counted, Rounds
from rivals.stock import Deployment, Stock

SMALL_RANK = 4
GOALS = (
    ("round_overhead_s", "s beyond the slowest training, at most 3"),
    ("secure_round_overhead_s", "the same with masks, at most 5"),
    ("stock_ratio", "stock Flower / ours, at least 10"),
    ("stock_wall_ratio", "the same of everything from the first process on"),
    ("idle_cpu_fraction", "of a core while waiting, at most 0.01"),
    ("idle_rss_mb", "MB while waiting, at most 300"),
    ("rested_rss_mb", "MB after a round, once the worker's memory is given back"),
    ("bytes_ratio", "reported / captured, 0.95 to 1.05"),
    ("secure_bytes_ratio", "the same with masks"),
    ("coordinator_mb_per_volunteer", "far below an adapter's size"),
    ("secure_coordinator_mb_per_volunteer", "the same with masks"),
    ("small_coordinator_mb_per_volunteer", "with a small adapter: what a connection takes"),
    ("adapter_mb", ""),
    ("small_adapter_mb", ""),
)


@dataclass(frozen=True)
class Sizes:
    """Amounts of everything."""

    rounds: int
    stock_rounds: int
    idle_s: float
    rested_s: float
    crowds: tuple[int, int]
    all_kinds: bool  # or plain rounds and masked crowds alone


FULL = Sizes(rounds=8, stock_rounds=3, idle_s=40.0, rested_s=40.0, crowds=(10, 50), all_kinds=True)
QUICK = Sizes(rounds=2, stock_rounds=0, idle_s=2.0, rested_s=0.0, crowds=(2, 3), all_kinds=False)


@dataclass(frozen=True)
class Results:
    """All that was seen. None: not asked for."""

    plain: Rounds
    secure: Rounds | None
    stock: Stock | None
    plain_peaks: tuple[Peak, Peak] | None
    secure_peaks: tuple[Peak, Peak]
    small_peaks: tuple[Peak, Peak] | None


def measure(scratch: Path, sizes: Sizes, say: Callable[[str], None]) -> Results:
    """Run everything, one after the other."""
    environment = _environment()
    say(f"a base model whose adapter has {model.VALUES} values")
    base = model.make(scratch / "base", environment)
    plan = rounds.Plan(base, environment, False, sizes.rounds, sizes.idle_s, sizes.rested_s)
    say("three volunteers, plain")
    plain = rounds.run(scratch / "plain", plan)
    say(f"overhead {plain.overhead:.2f} s")
    secure = None
    if sizes.all_kinds:
        say("three volunteers, masked")
        secure = rounds.run(scratch / "secure", rounds.Plan(base, environment, True, sizes.rounds))
        say(f"overhead {secure.overhead:.2f} s")
    stock = None
    if sizes.stock_rounds:
        say("stock Flower")
        deployment = Deployment(scratch / "stock", environment, len(NAMES))
        stock = deployment.run(sizes.stock_rounds, model.VALUES)

    def peaks(secure: bool, rank: int) -> tuple[Peak, Peak]:
        found = []
        for number in sizes.crowds:
            say(f"a crowd of {number}, {'masked' if secure else 'plain'}, rank {rank}")
            root = scratch / f"crowd-{number}-{secure}-{rank}"
            found.append(growth.peak(root, base, environment, Crowd(number, secure, rank)))
        return found[0], found[1]

    masked = peaks(True, model.RANK)
    if not sizes.all_kinds:
        return Results(plain, secure, stock, None, masked, None)
    of_plain, small = peaks(False, model.RANK), peaks(False, SMALL_RANK)
    return Results(plain, secure, stock, of_plain, masked, small)


def summary(found: Results, about: dict[str, Any]) -> dict[str, Any]:
    """The object `--json` prints; null is what could not be measured."""
    stock, plain, secure = found.stock, found.plain, found.secure
    stock_round = statistics.median(stock.rounds) if stock else None
    idle, rested = plain.idle, plain.rested
    return {
        "round_overhead_s": _short(plain.overhead),
        "secure_round_overhead_s": _short(secure.overhead if secure else None),
        "stock_ratio": _short(stock_round / plain.overhead if stock_round else None),
        "stock_wall_ratio": _short(
            _wall_per_round(stock) / _ours_per_round(plain) if stock else None
        ),
        "idle_cpu_fraction": _short(idle.cpu_fraction if idle else None, 5),
        "idle_rss_mb": _short(idle.rss_mb if idle else None),
        "rested_cpu_fraction": _short(rested.cpu_fraction if rested else None, 5),
        "rested_rss_mb": _short(rested.rss_mb if rested else None),
        "coordinator_mb_per_volunteer": _short(per_volunteer(found.plain_peaks)),
        "secure_coordinator_mb_per_volunteer": _short(per_volunteer(found.secure_peaks)),
        "small_coordinator_mb_per_volunteer": _short(per_volunteer(found.small_peaks)),
        "adapter_mb": 4 * model.VALUES / 1e6,
        "small_adapter_mb": 4 * model.VALUES * SMALL_RANK / model.RANK / 1e6,
        "bytes_ratio": _short(plain.sent.ratio if plain.sent else None, 4),
        "secure_bytes_ratio": _short(secure.sent.ratio if secure and secure.sent else None, 4),
        "bytes_per_volunteer_and_round": _bytes(plain.sent),
        "secure_bytes_per_volunteer_and_round": _bytes(secure.sent if secure else None),
        "stock_round_s": _short(stock_round),
        "seconds": _seconds(found),
        "peaks": [
            asdict(one)
            for two in (found.plain_peaks, found.secure_peaks, found.small_peaks)
            for one in two or ()
        ],
        **about,
    }


def _seconds(found: Results) -> dict[str, Any]:
    """Times of each kind of rounds, by what they are of."""
    kinds = {"plain": found.plain} | ({"secure": found.secure} if found.secure else {})
    stock = found.stock
    seconds: dict[str, Any] = {
        "stock exchanges": [[_short(s) for s in one] for one in stock.exchanges] if stock else None,
        "walls": {"stock": _short(stock.wall_s if stock else None)},
        "processor time of a round": {},
    }
    for kind, seen in kinds.items():
        seconds[f"{kind} overheads"] = [_short(value) for value in seen.overheads]
        seconds[f"{kind} phases"] = {name: _short(value) for name, value in seen.phases.items()}
        seconds["walls"][kind] = _short(seen.wall_s)
        cpu = {name: _short(value) for name, value in seen.cpu_s.items()}
        seconds["processor time of a round"][kind] = cpu
    return seconds


def per_volunteer(peaks: tuple[Peak, Peak] | None) -> float | None:
    """By how much the coordinator's peak grows with one volunteer more, 10⁶ bytes."""
    if peaks is None:
        return None
    few, many = peaks
    return (many.peak_mb - few.peak_mb) / (many.volunteers - few.volunteers)


def _wall_per_round(stock: Stock) -> float:
    return stock.wall_s / len(stock.rounds)


def _ours_per_round(found: Rounds) -> float:
    return found.wall_s / (len(found.overheads) + 1)


def _bytes(sent: Counted | None) -> dict[str, float] | None:
    return None if sent is None else {key: round(value) for key, value in asdict(sent).items()}


def _short(value: float | None, digits: int = 3) -> float | None:
    return None if value is None else round(value, digits)


def table(found: dict[str, Any]) -> str:
    """The same for a person."""
    lines = [f"{name:38s} {found[name]!s:>10s}   {why}" for name, why in GOALS]
    seconds = found["seconds"]
    for name in seconds["processor time of a round"]:
        phases = ", ".join(f"{key} {value}" for key, value in seconds[f"{name} phases"].items())
        lines.append(f"\n{name}: {phases} (s)")
        cpu = seconds["processor time of a round"][name]
        lines.append(f"  processor time of a round: {cpu} s")
    for name in ("bytes_per_volunteer_and_round", "secure_bytes_per_volunteer_and_round"):
        lines.append(f"{name}: {found[name]}")
    if seconds["stock exchanges"]:
        lines.append(f"stock exchanges: {seconds['stock exchanges']} s")
    lines.append(f"walls: {seconds['walls']} s; load average {found['load_average']}")
    lines += [f"crowd: {peak}" for peak in found["peaks"]]
    return "\n".join(lines)


def _environment() -> dict[str, str]:
    """The user's, with these modules importable, no network, and byte code cached as always."""
    unwanted = {"PYTHONDONTWRITEBYTECODE", "OMP_NUM_THREADS", "MKL_NUM_THREADS"}
    kept = {name: value for name, value in os.environ.items() if name not in unwanted}
    quiet = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    return kept | quiet | {"PYTHONPATH": str(Path(__file__).resolve().parent)}


def _versions() -> dict[str, str | None]:
    names = ("nomoat", "flwr", "torch", "transformers", "peft")
    known = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
    return {name: known.get(name) for name in names}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny sizes: a smoke test, no figures")
    parser.add_argument("--json", action="store_true", help="one object on stdout")
    parser.add_argument("--rounds", type=int, default=None)
    parser.add_argument("--crowd", type=int, default=None, help="volunteers in the larger crowd")
    parser.add_argument("--without-stock", action="store_true")
    options = parser.parse_args()
    sizes = QUICK if options.quick else FULL
    sizes = Sizes(
        options.rounds or sizes.rounds,
        0 if options.without_stock else sizes.stock_rounds,
        sizes.idle_s,
        sizes.rested_s,
        (sizes.crowds[0], options.crowd or sizes.crowds[1]),
        sizes.all_kinds,
    )
    with tempfile.TemporaryDirectory(prefix="nomoat-") as scratch:
        found = measure(Path(scratch), sizes, _say)
    about = {
        "volunteers": len(NAMES),
        "values": model.VALUES,
        "sizes": asdict(sizes),
        "quick": options.quick,
        "versions": _versions(),
        "load_average": os.getloadavg(),
    }
    shown = summary(found, about)
    sys.stdout.write((json.dumps(shown) if options.json else table(shown)) + "\n")


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    main()
