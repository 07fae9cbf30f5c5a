"""Rounds of honest volunteers while strangers and a member attack the coordinator's port.

python benchmarks/hostile.py [--json] [--rounds N] [--check] [--only NAME ...]

A community of four volunteers as processes, masked, over TLS on loopback, trains without pause; one
attack after the other runs beside it, from other threads here, each over `rounds` rounds, with as
many quiet rounds before and after it. The attacks of a member are one enrolled member's, whose
calls are authentic and who never trains; it is held for that at some time, and its calls go on.
Their quiet rounds have it there, too, and silent.

worst_slowdown   largest ratio of the median round under an attack to that of the quiet rounds
worst_growth_mb  largest growth of the coordinator's memory under an attack beyond its quiet peak
fivehundreds     answers of 500 and more, all attacks together
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from assault.connections import Attack
from assault.members import Mallory, by, silent_member
from assault.strangers import STRANGERS, nothing

from nomoat.simulations.loopback.cli import share_out
from nomoat.simulations.loopback.processes import LoopbackFederation
from nomoat.simulations.pocket import MODEL_DIR

OPTIONS = (
    "--allow-weak", "--max-rounds", "100000", "--local-steps", "2", "--batch-size", "2",
    "--seq-len", "64",
)  # fmt: skip
NAMES = ["ada", "bob", "cy", "dee"]
WAIT_S = 300.0
MOST_MB = 64.0


@contextlib.contextmanager
def community(root: Path) -> Iterator[LoopbackFederation]:
    """Four volunteers and their coordinator, at work; updates are masked."""
    with LoopbackFederation(root) as made:
        made.init("hostile", MODEL_DIR, ("--min-volunteers", "4", *OPTIONS))
        files = share_out(root, NAMES)
        made.up()
        made.wait("the port", lambda: bool(made.hosted()), WAIT_S)
        link = made.invite(len(NAMES))
        for name in NAMES:
            made.join(name, link, files[name], MODEL_DIR)
        made.wait("the first rounds", lambda: len(made.records()) > 3, WAIT_S)
        yield made


@dataclass(frozen=True)
class Window:
    """Some rounds. round_s: their median; peak_mb: of the coordinator; abandoned: of the rounds."""

    round_s: float
    peak_mb: float
    fivehundreds: int
    abandoned: int
    noted: str = ""


def window(made: LoopbackFederation, attack: Callable[[Attack], None], rounds: int) -> Window:
    """Watch so many rounds beside an attack."""
    under = Attack(made.port)
    thread = threading.Thread(target=attack, args=(under,), daemon=True)
    process = psutil.Process(made.processes["up"].pid)
    begun, ends, peak = len(made.records()), [time.monotonic()], 0.0
    thread.start()
    try:
        for _ in made.watch("rounds", lambda: len(ends) > rounds, WAIT_S):
            peak = max(peak, process.memory_info().rss / 2**20)
            ends.extend([time.monotonic()] * (len(made.records()) - begun - len(ends) + 1))
    finally:
        under.close()
        thread.join(10)
    lasted = [after - before for before, after in itertools.pairwise(ends)]
    abandoned = sum(not record.committed for record in made.records()[begun:])
    return Window(statistics.median(lasted), peak, under.fivehundreds, abandoned, under.noted)


def measured(rounds: int, only: list[str]) -> dict[str, Any]:
    """Every attack, or those named. Strangers come before there is a member who never trains.

    Rounds that ask that member wait for it, whatever else it does, until it is held: so its attacks
    stand beside rounds in which it is there and silent.
    """
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, community(Path(folder)) as made:
        attacks = beside(made, nothing, [one for one in STRANGERS if _chosen(one, only)], rounds)
        mallory = Mallory(made.port, made.invite(1))
        members = [one for one in by(mallory) if _chosen(one, only)]
        if members:
            mallory.join()
            attacks |= beside(made, partial(silent_member, mallory), members, rounds)
        listed = json.loads(made.call("volunteers", str(made.folder), "list", "--json"))
    found["attacks"] = attacks
    found["standing"] = {row["name"]: row["standing"] for row in listed}
    found["worst_slowdown"] = max(one["slowdown"] for one in attacks.values())
    found["worst_growth_mb"] = max(one["growth_mb"] for one in attacks.values())
    found["fivehundreds"] = sum(one["fivehundreds"] for one in attacks.values())
    return found


def beside(
    made: LoopbackFederation,
    quiet: Callable[[Attack], None],
    attacks: list[Callable[[Attack], None]],
    rounds: int,
) -> dict[str, Any]:
    """Watch each attack between quiet rounds."""
    found = {}
    before = window(made, quiet, rounds) if attacks else None
    for attack in attacks:
        assert before is not None
        under = window(made, attack, rounds)
        after = window(made, quiet, rounds)
        found[attack.__name__] = compared(under, before, after)
        before = after
    return found


def _chosen(attack: Callable[[Attack], None], only: list[str]) -> bool:
    return not only or attack.__name__ in only


def compared(under: Window, before: Window, after: Window) -> dict[str, Any]:
    """Compare a window with the quiet ones around it."""
    quiet = (before.round_s + after.round_s) / 2
    return {
        "round_s": under.round_s,
        "quiet_s": quiet,
        "slowdown": under.round_s / quiet,
        "growth_mb": max(0.0, under.peak_mb - max(before.peak_mb, after.peak_mb)),
        "fivehundreds": under.fivehundreds,
        "abandoned": under.abandoned,
        "noted": under.noted,
    }


def main() -> None:
    """Measure and print; with --check, exit code 1 if an attack had an effect."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true", help="hold memory and answers to bounds")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--only", nargs="*", default=[], help="names of attacks")
    options = parser.parse_args()
    found = measured(options.rounds, options.only)
    if options.json:
        sys.stdout.write(json.dumps(found) + "\n")
    else:
        show(found)
    if options.check and (found["worst_growth_mb"] > MOST_MB or found["fivehundreds"]):
        sys.exit(1)


def show(found: dict[str, Any]) -> None:
    """Print a table."""
    for name, one in found["attacks"].items():
        print(
            f"{name:20} {one['round_s']:6.2f} s a round, quiet {one['quiet_s']:6.2f} s "
            f"(× {one['slowdown']:.2f}), + {one['growth_mb']:.0f} MB, {one['fivehundreds']} × 5xx, "
            f"{one['abandoned']} abandoned {one['noted']}"
        )
    for name in ("worst_slowdown", "worst_growth_mb", "fivehundreds"):
        print(f"{name:20} {found[name]:.2f}")
    print(", ".join(f"{name}: {standing}" for name, standing in found["standing"].items()))


if __name__ == "__main__":
    main()
