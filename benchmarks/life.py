"""What ordinary life costs a community: trainings in vain, abandoned rounds, recovery, growth.

    python benchmarks/life.py [--json] [--rounds N] [--seeds N]

The lives of tests/life: the real coordinator, journal, roster and volunteers' sessions, diaries and
logs over a scripted line; time is the script's, so seconds below are those of the protocol (answers
take up to 20 s each), not of a machine that trains.

    wasted_paused        share of trainings that were in no sum, two of three paused; at most 0.02
    wasted_restless      the same where each owner pauses and resumes as it likes, in mid-round, too
    abandoned_per_hour_idle   rounds given up while too few are there; at most 6
    night                everybody goes, in mid-round, for NIGHT_H hours: rounds abandoned, kB
                         that the database grew by, seconds from the morning to the next commit
    recovery_s           from a fault's end to the next commit, by fault: median and worst
    bytes_per_abandoned_round   in the database; at most 4096
    db_mb_per_1000_rounds       of the database, beside the versions kept; at most 20
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
life: Any = importlib.import_module("tests.life.world")

HOUR_S, SUSPENDED_S, NIGHT_H = 3600.0, 65.0, 9.0
RESTLESS = 1 / 60  # that somebody pauses or resumes, every two seconds
OUTAGES = 1 / 60  # that three of five go away, or come back
THREE = ("ada", "bob", "cy")


def world(root: Path, made: Path, seed: int, **hooks: Callable[..., None]) -> Any:
    """A calm world; hooks: weather, called as time passes, and ended, after each round."""

    class Measured(life.World):  # type: ignore[misc]
        """A world in which only what is measured happens."""

        def _weather(self) -> None:
            self.now += life.LOOK_S
            if "weather" in hooks:
                hooks["weather"](self)

        def ended(self, record: Any) -> None:
            if "ended" in hooks:
                hooks["ended"](self, record)

    found = Measured(seed, made, root)
    found.rough = False
    return found


def trainings(found: Any) -> int:
    """Trainings of everybody so far."""
    return sum(len(person.trainer.trained) for person in found.people.values())


def only_three(found: Any) -> None:
    """Let the others be away."""
    for name, person in found.people.items():
        person.away = name not in THREE


def wasted(root: Path, made: Path, rounds: int, restless: bool) -> float:
    """Share of trainings that were in no sum."""
    tally = {"all": 0, "wasted": 0, "before": 0, "rounds": 0}

    def weather(found: Any) -> None:
        if restless and found.rng.random() < RESTLESS:
            person = found.people[found.rng.choice(THREE)]
            person.paused = not person.paused
        if not restless and found.now > 1e6 + 2 * HOUR_S:
            raise life.Ended

    def ended(found: Any, record: Any) -> None:
        now = trainings(found)
        made_now = now - tally["before"]
        tally["before"], tally["all"] = now, now
        tally["wasted"] += made_now - (len(record.contributors) if record.summed else 0)
        tally["rounds"] += 1
        if not restless and tally["rounds"] == 3:
            for name in THREE[1:]:
                found.people[name].paused = True
        if tally["rounds"] >= rounds:
            raise life.Ended

    found = world(root, made, 1, weather=weather, ended=ended)
    only_three(found)
    found.host()
    return max(0, tally["wasted"]) / max(1, tally["all"])


def idle(root: Path, made: Path, hours: float) -> float:
    """Rounds abandoned an hour while two of three are there."""
    count = [0]

    def weather(found: Any) -> None:
        if found.now > 1e6 + hours * HOUR_S:
            raise life.Ended

    def ended(_found: Any, record: Any) -> None:
        count[0] += not record.committed

    found = world(root, made, 2, weather=weather, ended=ended)
    only_three(found)
    found.people["cy"].away = True
    found.host()
    return count[0] / hours


def night(root: Path, made: Path, seed: int) -> dict[str, float]:
    """Let everybody go in the middle of a round, and come back in the morning."""
    state = {"evening": 0.0, "morning": 0.0, "commits": 0, "abandoned": 0, "before": 0}

    def size(found: Any) -> int:
        return sum(path.stat().st_size for path in found.home.glob("community.db*"))

    def weather(found: Any) -> None:
        if not state["evening"] or state["morning"]:
            return
        if not state["before"] and found.now >= state["evening"]:
            state["before"] = size(found)
        everybody = found.now >= state["evening"] + NIGHT_H * HOUR_S
        for person in found.people.values():
            person.away = not everybody and found.now >= state["evening"]
        if everybody:
            state["morning"], state["kb"] = found.now, (size(found) - state["before"]) / 1000

    def ended(found: Any, record: Any) -> None:
        state["commits"] += record.committed
        if state["commits"] == 2 and not state["evening"]:
            state["evening"] = found.now + found.rng.random() * 60.0
        state["abandoned"] += bool(state["before"]) and not record.committed
        if state["morning"] and record.committed:
            raise life.Ended

    found = world(root, made, seed, weather=weather, ended=ended)
    found.host()
    recovery_s = round(found.now - state["morning"], 1)
    return {"abandoned": state["abandoned"], "kb": state["kb"], "recovery_s": recovery_s}


def fault_killed(found: Any) -> None:
    found.people["ada"].start()


def fault_away(found: Any) -> None:
    found.people["ada"].away = True


def fault_full(found: Any) -> None:
    found.people["ada"].disk.full[0] = True


def fault_suspended(found: Any) -> None:
    found.now += SUSPENDED_S


def fault_coordinator(_found: Any) -> None:
    raise life.Ended


FAULTS: dict[str, Callable[[Any], None]] = {
    "volunteer_killed": fault_killed,
    "volunteer_away_60s": fault_away,
    "volunteer_disk_full_60s": fault_full,
    "suspended_65s": fault_suspended,
    "coordinator_killed": fault_coordinator,
}


def recovery(root: Path, made: Path, seed: int, fault: Callable[[Any], None]) -> float:
    """Seconds from a fault's end to the next commit; the fault is at a random moment of a round."""
    state = {"at": 0.0, "until": 0.0, "over": 0.0, "commits": 0}

    def weather(found: Any) -> None:
        if state["at"] and not state["until"] and found.now >= state["at"]:
            state["until"] = found.now + 60.0
            fault(found)
        if state["until"] and not state["over"] and found.now >= state["until"]:
            state["over"] = found.now
            found.people["ada"].away = found.people["ada"].disk.full[0] = False

    def ended(found: Any, record: Any) -> None:
        state["commits"] += record.committed
        if state["commits"] == 2 and not state["at"]:
            state["at"] = found.now + found.rng.random() * 60.0
        if state["until"] and record.committed and (state["over"] or fault is fault_coordinator):
            raise life.Ended

    found = world(root, made, seed, weather=weather, ended=ended)
    found.host()
    if fault is fault_coordinator:
        begun = found.now
        found.host()
        return float(found.now - begun)
    return float(found.now - state["over"])


def growth(root: Path, made: Path, rounds: int) -> tuple[float, float]:
    """(MB of the database in 1000 rounds beside versions, bytes of an abandoned round)."""
    done = [0]

    def weather(found: Any) -> None:
        if found.rng.random() < OUTAGES:  # now and then a round comes to nothing
            for name in ("ada", "bob", "cy"):
                found.people[name].away = not found.people[name].away

    def ended(_found: Any, _record: Any) -> None:
        done[0] += 1
        if done[0] >= rounds:
            raise life.Ended

    found = world(root, made, 3, weather=weather, ended=ended)
    before = (found.home / "community.db").stat().st_size
    found.host()
    community = life.OpenCommunity.open(found.home)
    store = community.registrar.database
    store._all("PRAGMA wal_checkpoint(TRUNCATE)")
    sizes = "SELECT length(record) + length(checkpoint) FROM rounds WHERE NOT committed"
    abandoned = [size for (size,) in store._all(sizes)]
    kept = sum(len(row) for (row,) in store._all("SELECT record FROM versions"))
    store.close()
    grown = (found.home / "community.db").stat().st_size - before - kept
    return grown / 1e6 * 1000 / rounds, max(abandoned, default=0)


def measure(rounds: int, seeds: int) -> dict[str, Any]:
    """All figures."""
    fast = Path("/dev/shm")
    place = fast if os.access(fast, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place) as folder:
        root = Path(folder)
        made = life.template(root / "template")
        number = iter(range(10_000))

        def fresh() -> Path:
            for old in root.glob("life-*"):
                shutil.rmtree(old, ignore_errors=True)
            return root / f"life-{next(number)}"

        found: dict[str, Any] = {
            "wasted_paused": wasted(fresh(), made, rounds, restless=False),
            "wasted_restless": wasted(fresh(), made, rounds, restless=True),
            "abandoned_per_hour_idle": idle(fresh(), made, 6.0),
            "night": [night(fresh(), made, seed) for seed in range(seeds)],
            "recovery_s": {},
        }
        for name, fault in FAULTS.items():
            taken = [recovery(fresh(), made, seed, fault) for seed in range(seeds)]
            found["recovery_s"][name] = {
                "median": round(statistics.median(taken), 1),
                "worst": round(max(taken), 1),
            }
        megabytes, size = growth(fresh(), made, rounds)
        found |= {"bytes_per_abandoned_round": size, "db_mb_per_1000_rounds": round(megabytes, 2)}
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one object on stdout")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    found = measure(options.rounds, options.seeds)
    if options.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:28} {value}")


if __name__ == "__main__":
    main()
