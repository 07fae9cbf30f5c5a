"""Growth of the coordinator's memory with its volunteers."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deployed.community import follow
from deployed.idle import peak_mb
from nomoat.simulations.loopback.processes import LoopbackFederation

START_S = 400.0
ROUNDS = 1
TRAINING = ("--local-steps", "1", "--batch-size", "1", "--seq-len", "16")


@dataclass(frozen=True)
class Peak:
    """The coordinator's largest resident memory (10⁶ bytes), and seconds it all took."""

    volunteers: int
    peak_mb: float
    before_mb: float  # up, nobody there yet
    seconds: float


@dataclass(frozen=True)
class Crowd:
    """The number of volunteers, whether masked, and the adapter's rank."""

    volunteers: int
    secure: bool
    rank: int


def peak(root: Path, base: Path, environment: Mapping[str, str], crowd_of: Crowd) -> Peak:
    """One round of that many volunteers who train by arithmetic, in a process beside."""
    root.mkdir(parents=True)
    volunteers = crowd_of.volunteers
    masks = ("--allow-weak",) if crowd_of.secure else ("--no-secure",)
    people = ("--min-volunteers", str(volunteers), "--max-rounds", str(ROUNDS))
    with LoopbackFederation(root, environment=environment) as federation:
        shape = ("--rank", str(crowd_of.rank))
        federation.init("growth", base, (*people, *masks, *shape, *TRAINING))
        started = time.monotonic()
        federation.up()
        federation.wait("the coordinator", lambda: bool(federation.hosted()), START_S)
        coordinator = federation.processes["up"].pid
        before = peak_mb(coordinator)
        link = federation.invite(volunteers)
        with (root / "crowd.err").open("wb") as err:
            crowd = subprocess.Popen(
                [sys.executable, "-m", "deployed.crowd", str(root), str(volunteers), str(base)],
                stdin=subprocess.PIPE,
                stderr=err,
                env={**environment, "NOMOAT_HOME": str(root / "nobody")},
            )
        assert crowd.stdin is not None
        try:
            crowd.stdin.write(link.encode() + b"\n")
            crowd.stdin.flush()
            *_, last = follow(federation, ROUNDS)
            if len(last.record.contributors) != volunteers:
                raise RuntimeError(f"not everybody took part: {last.record}")
            return Peak(volunteers, peak_mb(coordinator), before, last.at - started)
        finally:
            crowd.kill()
            crowd.wait()
