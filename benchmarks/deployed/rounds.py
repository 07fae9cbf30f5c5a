"""Rounds of a real community of three: what they cost beyond training, and what they send."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from deployed.capture import Capture
from deployed.community import NAMES, Community, Ended, follow, overheads, phases, walls
from deployed.idle import Idle, cpu_s, watch
from nomoat.simulations.loopback.processes import LoopbackFederation

REST_S = 130.0  # a volunteer gives its worker's memory back after 120 s
JOIN_S = 300.0


@dataclass(frozen=True)
class Counted:
    """Bytes per volunteer and round: as the rounds' records say, and as captured."""

    reported_up: float
    reported_down: float
    captured_up: float
    captured_down: float
    dropped_packets: int

    @property
    def ratio(self) -> float:
        """Reported / captured, both directions together."""
        return (self.reported_up + self.reported_down) / (self.captured_up + self.captured_down)


@dataclass(frozen=True)
class Rounds:
    """All that was seen of one community. Times in seconds; a median is over rounds 2 to the last.

    wall_s: from the first process to the end of the last round. cpu_s: processor time a round
    takes, by process. idle: a volunteer that has joined and waits; rested: one that has trained.
    """

    overheads: list[float]
    walls: list[float]
    phases: dict[str, float]
    cpu_s: dict[str, float]
    wall_s: float
    sent: Counted | None
    idle: Idle | None = None
    rested: Idle | None = None

    @property
    def overhead(self) -> float:
        """Median overhead of a round."""
        return statistics.median(self.overheads)


@dataclass(frozen=True)
class Plan:
    """A plan: masked or not, the number of rounds; seconds to watch idle volunteers (0: not)."""

    base: Path
    environment: Mapping[str, str]
    secure: bool
    rounds: int
    idle_s: float = 0.0
    rested_s: float = 0.0


def run(root: Path, plan: Plan) -> Rounds:
    """Start a community, run its rounds, watch."""
    community = Community(root, plan.base, plan.environment, plan.secure, plan.rounds)
    started = time.monotonic()
    with community.up() as federation, ExitStack() as things:
        try:
            capture = things.enter_context(Capture(federation.port))
        except (PermissionError, AttributeError):  # not allowed, or not Linux
            capture = None
        idle, waited = None, 0.0
        if plan.idle_s:
            at = time.monotonic()
            community.join(federation, NAMES[:1])
            federation.wait("a volunteer that waits", lambda: waits(federation), JOIN_S)
            idle = watch(federation.processes[NAMES[0]].pid, plan.idle_s)
            waited = time.monotonic() - at
        community.join(federation, NAMES[1:] if plan.idle_s else NAMES)
        seen = _Seen(federation, capture)
        ended = follow(federation, plan.rounds, seen.note)
        found = Rounds(
            overheads(ended),
            walls(ended),
            phases(ended),
            seen.cpu_per_round(),
            ended[-1].at - started - waited,
            seen.counted(ended),
            idle,
        )
        if plan.rested_s:
            time.sleep(REST_S)
            pid = federation.processes[NAMES[0]].pid
            found = replace(found, rested=watch(pid, plan.rested_s))
        return found


def waits(federation: LoopbackFederation) -> bool:
    """Return whether the first volunteer has joined and waits for a round."""
    return federation.state(NAMES[0]).get("doing") == "waiting"


class _Seen:
    """Counters, noted whenever a round ends."""

    def __init__(self, federation: LoopbackFederation, capture: Capture | None) -> None:
        self._federation = federation
        self._capture = capture
        self._bytes: list[tuple[int, int]] = []
        self._cpu: list[dict[str, float]] = []

    def note(self) -> None:
        """A round has just ended."""
        if self._capture is not None:
            self._bytes.append((self._capture.up, self._capture.down))
        self._cpu.append(
            {name: cpu_s(process.pid) for name, process in self._federation.processes.items()}
        )

    def cpu_per_round(self) -> dict[str, float]:
        """Mean over rounds 2 to the last; the volunteers' is that of all of them, with workers."""
        first, last = self._cpu[1], self._cpu[-1]
        rounds = len(self._cpu) - 2
        each = {name: (last[name] - first[name]) / rounds for name in last}
        coordinator = each.pop("up")
        return {"coordinator": coordinator, "volunteers": sum(each.values())}

    def counted(self, ended: list[Ended]) -> Counted | None:
        """Over rounds 2 to the last."""
        if self._capture is None:
            return None
        shares = (len(ended) - 2) * len(NAMES)
        up, down = (b - a for a, b in zip(self._bytes[1], self._bytes[-1], strict=True))
        records = [round_.record for round_ in ended[2:]]
        return Counted(
            sum(record.bytes_up for record in records) / shares,
            sum(record.bytes_down for record in records) / shares,
            up / shares,
            down / shares,
            self._capture.dropped,
        )
