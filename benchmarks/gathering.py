"""Many lines to one coordinator: how long until all are there, and what it costs to hold them.

python benchmarks/gathering.py [--lines N] [--asked N] [--idle S] [--within S] [--json]

enrolled_s, online_s   from the first volunteer's first request until all have enrolled, and until
                       the coordinator counts all of them as online
up_s, lines_s          processor seconds that coordinator and volunteers took until then
idle_cores,            the coordinator's processor time a second while nobody has anything to do,
idle_core_share        and that of its round process alone
mb_each                what its resident memory grew by, for each line
round_s, phases        with --asked: a masked round of so many of them, all lines being held;
round_up_s, _lines_s   processor seconds of coordinator and volunteers in it
calls_each_s           with --calls: heartbeats a second, as many as the machine makes
core_ms, porters_ms,   processor time that one took in the round process, in port processes, and
lines_ms, core_share   among the volunteers; part of a core that the round process had

The volunteers are those of deployed/lines.py, all in one process on the machine that the
coordinator has, too: wall times are those of a busy machine of so many cores. With --asked a round
begins as soon as everybody is online, so nothing idle is seen; without, none does.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from deployed import model
from deployed.community import TRAINING
from deployed.idle import cpu_s, watch
from nomoat.server.rounds.records import RoundRecord
from nomoat.simulations.loopback.processes import LoopbackFederation

START_S = 60.0
LOOK_S = 0.5
SETTLE_S = 50.0  # each has pulled once more
RANK = "4"  # 0.1 million values


@dataclass(frozen=True)
class Sizes:
    """Lines, how many of them a round asks (0: no round), seconds to watch, seconds to come in.

    processes: port processes before the coordinator, 0 for none.
    """

    lines: int
    asked: int
    idle_s: float
    within_s: float
    processes: int
    base: Path | None = None
    calls_s: float = 0.0


@dataclass(frozen=True)
class Spent:
    """Processor seconds of coordinator and volunteers."""

    up_s: float
    lines_s: float


@dataclass(frozen=True)
class Gathered:
    """What was seen. online: lines the coordinator counted in the end. lost: connections."""

    lines: int
    enrolled: int = 0
    online: int = 0
    lost: int = 0
    enrolled_s: float | None = None
    online_s: float | None = None
    up_s: float = 0.0
    lines_s: float = 0.0
    idle_cores: float | None = None
    idle_core_share: float | None = None
    mb_before: float = 0.0
    mb_each: float = 0.0
    round_s: float | None = None
    round_up_s: float | None = None
    round_lines_s: float | None = None
    asked: int = 0
    contributors: int = 0
    phases: dict[str, float] = field(default_factory=dict)
    calls_each_s: float | None = None
    core_ms: float | None = None
    porters_ms: float | None = None
    lines_ms: float | None = None
    core_share: float | None = None
    load_average: tuple[float, float, float] = (0.0, 0.0, 0.0)


@contextmanager
def held(
    root: Path, base: Path, link: str, lines: int, *, beating: bool
) -> Iterator[subprocess.Popen[bytes]]:
    """Start the volunteers' process, and end it with the block."""
    environment = {**os.environ, "NOMOAT_HOME": str(root / "nobody"), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", "deployed.lines", str(root / "lines"), str(lines), str(base)]
    words += ["beat"] if beating else []
    environment["PYTHONPATH"] = str(Path(__file__).parent)
    with (root / "lines.err").open("wb") as err, (root / "lines.out").open("wb") as out:
        process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=out, stderr=err, env=environment
        )
    assert process.stdin is not None
    try:
        process.stdin.write(link.encode() + b"\n")
        process.stdin.flush()
        yield process
    finally:
        process.kill()
        process.wait()


@dataclass(frozen=True)
class Watch:
    """Looks at a coordinator, its volunteers' process and what both have said."""

    federation: LoopbackFederation
    lines: subprocess.Popen[bytes]

    def spent(self) -> Spent:
        """Processor seconds so far."""
        return Spent(cpu_s(self.federation.processes["up"].pid), cpu_s(self.lines.pid))

    def said(self) -> tuple[int, int, int, int]:
        """(enrolled, activated, connections lost, heartbeats) as the volunteers' process says."""
        words = (self.federation.root / "lines.out").read_text().split()[-4:]
        enrolled, activated, lost, calls = map(int, words) if len(words) == 4 else (0, 0, 0, 0)
        return enrolled, activated, lost, calls

    def core_s(self) -> float:
        """Processor seconds of the round process alone."""
        return float(sum(psutil.Process(self.federation.processes["up"].pid).cpu_times()[:2]))

    def online(self) -> int:
        """Return how many the coordinator counts."""
        return len(self.federation.hosted().get("online", ()))


def gather(root: Path, sizes: Sizes, say: Callable[[str], None]) -> Gathered:
    """Bring them together, and look at the coordinator."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    base = sizes.base or model.make(root / "base", environment)
    needed = sizes.lines if sizes.asked else sizes.lines + 1  # one more: no round begins
    people = ["--min-volunteers", str(needed), "--max-rounds", "1"]
    if sizes.asked:
        share = sizes.asked / sizes.lines
        people += ["--min-reports", str(sizes.asked * 9 // 10), "--fraction", f"{share:.6f}"]
    with LoopbackFederation(root, environment={"OMP_NUM_THREADS": "1"}) as federation:
        federation.init("gathering", base, (*people, "--allow-weak", "--rank", RANK, *TRAINING))
        federation.up("--port-processes", str(sizes.processes))
        federation.wait("the coordinator", lambda: bool(federation.hosted()), START_S)
        link, pid = federation.invite(sizes.lines), federation.processes["up"].pid
        before = watch(pid, 2.0)
        with held(root, base, link, sizes.lines, beating=sizes.calls_s > 0) as process:
            return _watched(Watch(federation, process), sizes, before.rss_mb, say)


def _watched(look: Watch, sizes: Sizes, mb_before: float, say: Callable[[str], None]) -> Gathered:
    began, at_first = time.monotonic(), look.spent()
    enrolled_s = online_s = None
    while time.monotonic() - began < sizes.within_s and online_s is None:
        time.sleep(LOOK_S)
        now, (enrolled, activated, _, _), online = time.monotonic(), look.said(), look.online()
        say(f"{now - began:4.0f} s: {enrolled} enrolled, {activated} came, {online} online")
        if enrolled >= sizes.lines and enrolled_s is None:
            enrolled_s = now - began
        if online >= sizes.lines:
            online_s = now - began
    there = look.spent()
    seen: dict[str, Any] = {
        "lines": sizes.lines,
        "enrolled_s": enrolled_s,
        "online_s": online_s,
        "up_s": there.up_s - at_first.up_s,
        "lines_s": there.lines_s - at_first.lines_s,
        "mb_before": mb_before,
    }
    if sizes.asked:
        seen |= _round(look, there, say)
    elif sizes.calls_s:
        seen |= _calls(look, sizes.calls_s)
    elif sizes.idle_s:
        time.sleep(SETTLE_S)
        core_s = look.core_s()
        idle = watch(look.federation.processes["up"].pid, sizes.idle_s)
        seen["idle_cores"] = idle.cpu_fraction
        seen["idle_core_share"] = (look.core_s() - core_s) / sizes.idle_s
        seen["mb_each"] = (idle.rss_mb - mb_before) / sizes.lines
    enrolled, _, lost, _ = look.said()
    return Gathered(
        enrolled=enrolled, online=look.online(), lost=lost, load_average=os.getloadavg(), **seen
    )


def _calls(look: Watch, seconds: float) -> dict[str, Any]:
    """Count heartbeats for a while, and what they take."""

    def now() -> tuple[float, int, float, Spent]:
        return time.monotonic(), look.said()[-1], look.core_s(), look.spent()

    began, calls, core_s, spent = now()
    time.sleep(seconds)
    ended, calls_then, core_then_s, then = now()
    took, made = ended - began, calls_then - calls
    core = core_then_s - core_s
    return {
        "calls_each_s": made / took,
        "core_ms": 1e3 * core / made,
        "porters_ms": 1e3 * (then.up_s - spent.up_s - core) / made,
        "lines_ms": 1e3 * (then.lines_s - spent.lines_s) / made,
        "core_share": core / took,
    }


def _round(look: Watch, before: Spent, say: Callable[[str], None]) -> dict[str, Any]:
    """Follow the round that has begun to its end."""
    began = time.monotonic()
    while len(records := look.federation.records()) < 2:
        time.sleep(LOOK_S)
        state = look.federation.hosted()
        where = " ".join(str(state.get(what)) for what in ("phase", "answered", "asked"))
        say(f"{time.monotonic() - began:4.0f} s: {where}")
    record: RoundRecord = records[1]
    after = look.spent()
    if not record.committed:
        raise RuntimeError(f"the round was abandoned: {record.reason}")
    return {
        "round_s": time.monotonic() - began,
        "round_up_s": after.up_s - before.up_s,
        "round_lines_s": after.lines_s - before.lines_s,
        "asked": len(record.cohort),
        "contributors": len(record.contributors),
        "phases": record.seconds,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--lines", type=int, default=1000)
    parser.add_argument("--asked", type=int, default=0)
    parser.add_argument("--idle", type=float, default=60.0)
    parser.add_argument("--within", type=float, default=240.0)
    parser.add_argument("--calls", type=float, default=0.0, help="Seconds of nothing but calls.")
    parser.add_argument("--port-processes", type=int, default=0)
    parser.add_argument("--base", type=Path, help="A base model, instead of one made for this.")
    parser.add_argument("--keep", type=Path, help="Keep what was written in this new folder.")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    def say(text: str) -> None:
        sys.stderr.write(f"\r{text:76}")

    sizes = Sizes(
        options.lines,
        options.asked,
        options.idle,
        options.within,
        options.port_processes,
        options.base,
        options.calls,
    )
    with tempfile.TemporaryDirectory(prefix="nomoat-") as scratch:
        root = options.keep or Path(scratch)
        root.mkdir(exist_ok=True)
        found = gather(root, sizes, say)
    sys.stderr.write("\n")
    for name, value in asdict(found).items():
        if not options.json:
            sys.stdout.write(f"{name:16} {value}\n")
    if options.json:
        sys.stdout.write(json.dumps(asdict(found)) + "\n")


if __name__ == "__main__":
    main()
