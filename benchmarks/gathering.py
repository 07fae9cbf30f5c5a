"""Many lines to one coordinator: how long until all are there, and what it costs to hold them.

python benchmarks/gathering.py [--lines N] [--processes N] [--idle S] [--within S] [--json]

enrolled_s, online_s   from the first volunteer's first request until all have enrolled, and until
                       the coordinator counts all of them as online
idle_cores             the coordinator's processor time a second while nobody has anything to do
mb_each                what its resident memory grew by, for each line

The volunteers are those of deployed/crowd.py: keys, TLS, enrolment, polls and heartbeats are the
product's own. Each process of them comes from an address of its own in 127/8. All of them share
this machine with the coordinator, so that the first two figures are those of a busy machine.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deployed import model
from deployed.community import TRAINING
from deployed.idle import watch
from nomoat.simulations.loopback.processes import LoopbackFederation

START_S = 60.0
LOOK_S = 0.5
SETTLE_S = 40.0  # one heartbeat of each has passed


@dataclass(frozen=True)
class Gathered:
    """What was seen. online: lines the coordinator counted in the end."""

    lines: int
    enrolled: int
    online: int
    enrolled_s: float | None
    online_s: float | None
    up_cores: float  # of the coordinator until then
    idle_cores: float
    mb_before: float
    mb_each: float
    load_average: tuple[float, float, float]


def crowd(root: Path, base: Path, first: int, number: int) -> None:
    """Enlist volunteers from an address of this process's own, and hold their lines."""
    from deployed.crowd import enlist

    _come_from(f"127.0.{1 + first // 250}.{1 + first % 250}")
    link, stop = sys.stdin.readline().strip(), threading.Event()
    for index in range(first, first + number):
        enlist(root, f"v{index:04d}", link, base, stop)
        sys.stdout.write(f"{index}\n")
        sys.stdout.flush()
    sys.stdin.read()
    os._exit(0)  # nobody waits for a thousand threads


def _come_from(address: str) -> None:
    """Let every connection of this process be one from `address`."""
    plain: Callable[..., socket.socket] = socket.create_connection

    def bound(where: Any, timeout: Any = None, source_address: Any = None, **more: Any) -> Any:
        return plain(where, timeout, source_address or (address, 0), **more)

    vars(socket)["create_connection"] = bound


@contextmanager
def crowds(
    root: Path, base: Path, link: str, lines: int, processes: int
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start the processes, and end them with the block."""
    environment = {**os.environ, "NOMOAT_HOME": str(root / "nobody"), "OMP_NUM_THREADS": "1"}
    started = []
    edges = [lines * number // processes for number in range(processes + 1)]
    try:
        for first, after in itertools.pairwise(edges):
            words = ["--crowd", str(root), str(base), str(first), str(after - first)]
            with (
                (root / f"crowd-{first}.err").open("wb") as err,
                (root / f"crowd-{first}.out").open("wb") as out,
            ):
                process = subprocess.Popen(
                    [sys.executable, __file__, *words],
                    stdin=subprocess.PIPE,
                    stdout=out,
                    stderr=err,
                    env=environment,
                )
            started.append(process)
            assert process.stdin is not None
            process.stdin.write(link.encode() + b"\n")
            process.stdin.flush()
        yield started
    finally:
        for process in started:
            process.kill()
            process.wait()


def gather(root: Path, lines: int, processes: int, idle_s: float, within_s: float) -> Gathered:
    """Bring them together, and look at the coordinator."""
    base = model.make(root / "base", {**os.environ, "PYTHONPATH": str(Path(__file__).parent)})
    with LoopbackFederation(root, environment={"OMP_NUM_THREADS": "1"}) as federation:
        people = ("--min-volunteers", str(lines + 1), "--allow-weak")  # so that no round begins
        federation.init("gathering", base, (*people, "--rank", "4", *TRAINING))
        federation.up()
        federation.wait("the coordinator", lambda: bool(federation.hosted()), START_S)
        link, pid = federation.invite(lines), federation.processes["up"].pid
        before = watch(pid, 2.0)
        started, spent = time.monotonic(), _spent(pid)
        with crowds(root, base, link, lines, processes):
            enrolled_s = online_s = None
            while time.monotonic() - started < within_s and online_s is None:
                time.sleep(LOOK_S)
                enrolled, online = _enrolled(root), len(federation.hosted().get("online", ()))
                now = time.monotonic() - started
                sys.stderr.write(f"\r{now:5.0f} s: {enrolled} enrolled, {online} online ")
                if enrolled >= lines and enrolled_s is None:
                    enrolled_s = now
                if online >= lines:
                    online_s = now
            took = time.monotonic() - started
            cores = (_spent(pid) - spent) / took
            time.sleep(SETTLE_S)
            idle = watch(pid, idle_s)
            return Gathered(
                lines,
                _enrolled(root),
                len(federation.hosted().get("online", ())),
                enrolled_s,
                online_s,
                cores,
                idle.cpu_fraction,
                before.rss_mb,
                (idle.rss_mb - before.rss_mb) / lines,
                os.getloadavg(),
            )


def _enrolled(root: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in root.glob("crowd-*.out"))


def _spent(pid: int) -> float:
    from deployed.idle import cpu_s

    return cpu_s(pid)


def main() -> None:
    """Measure and print."""
    if sys.argv[1:2] == ["--crowd"]:
        root, base, first, number = sys.argv[2:]
        crowd(Path(root), Path(base), int(first), int(number))
        return
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--lines", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--idle", type=float, default=60.0)
    parser.add_argument("--within", type=float, default=240.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nomoat-") as scratch:
        found = gather(
            Path(scratch), options.lines, options.processes, options.idle, options.within
        )
    sys.stderr.write("\n")
    for name, value in asdict(found).items():
        if not options.json:
            sys.stdout.write(f"{name:16} {value}\n")
    if options.json:
        sys.stdout.write(json.dumps(asdict(found)) + "\n")


if __name__ == "__main__":
    main()
