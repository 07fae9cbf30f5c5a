"""Volunteers who see each other's processes on one GPU: somebody always trains, and all come to it.

The world is a driver that lists processes by their ids on the host, and volunteers whose policy
looks every few seconds, in containers of their own or not. A worker appears some seconds after it
was started and is listed for a moment after it has ended, as real ones are.
"""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from nomoat.client.machine import gpu as gpu_module
from nomoat.client.machine.courtesy import BREAK
from nomoat.client.machine.gpu import Gpu
from nomoat.client.machine.policy import Action, Decision, decide
from nomoat.client.machine.readings import MachineLimits, Orders, Readings
from nomoat.lora.device.nvml_pids import ours
from nomoat.lora.device.turns import Ticket, must_hand_over, standing

START = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
APPEARS_S, LINGERS_S = 8.0, 2.0
ROUND_S, GAP_S, IDLE_S = 240.0, 30.0, 120.0
LOOK_S = 2.0
HOURS = 2.5


@dataclass
class World:
    """The driver, the tickets, and whose namespace is asking."""

    now: float = 0.0
    workers: dict[int, tuple[str, float, float | None]] = field(default_factory=dict)
    tickets: dict[str, Ticket] = field(default_factory=dict)
    asking: str = ""
    pid: int = 5000

    def listed(self) -> list[int]:
        return [
            pid
            for pid, (_, start, end) in self.workers.items()
            if start + APPEARS_S <= self.now and (end is None or self.now < end + LINGERS_S)
        ]

    def name(self, pid: int) -> str:
        space, _, _ = self.workers[pid]
        if space != "h" or self.asking != "h":  # of the host; others only they have
            raise ProcessLookupError(pid)
        return "python"


@dataclass
class Volunteer:
    """One policy and its worker; `space`: its process namespace, `shared`: its tickets' folder."""

    name: str
    owner: str
    space: str
    shared: str | None
    world: World
    limits: MachineLimits
    gpu: Gpu = field(default_factory=lambda: Gpu(0))
    decision: Decision | None = None
    worker: int | None = None
    known: frozenset[int] = frozenset()
    ticket: Ticket | None = None
    began: float = 0.0
    done: int = 0
    left_s: float = ROUND_S
    next_round: float = 0.0
    idle_since: float | None = None
    trained_s: float = 0.0

    def look(self) -> None:
        world = self.world
        world.asking = self.space
        if self.worker is not None and world.now >= self.began + APPEARS_S:
            listed = frozenset(world.listed())
            self.known |= ours(listed - {self.worker}, listed, -1) or {self.worker}
            self._ticket(pids=(self.worker,))
        programs = self.gpu.programs(self.known | self._allies())
        now = START + timedelta(seconds=world.now)
        readings = Readings(now, gpu_programs=programs, apart=self.gpu.apart)
        self.decision = decide(readings, self.limits, Orders(), True, self.decision)
        if self.decision.action is not Action.TRAIN:
            self.stop()
        elif self._has_work():
            self.work()
        elif self.worker is not None:
            self.rest()

    def work(self) -> None:
        if self.worker is None and self._may_begin():
            self.world.pid += 1
            self.worker, self.began = self.world.pid, self.world.now
            self.world.workers[self.worker] = (self.space, self.world.now, None)
        elif self.worker is not None and self.world.now >= self.began + APPEARS_S:
            self.left_s -= LOOK_S
            self.trained_s += LOOK_S
            if self.left_s <= 0:
                self.done, self.left_s = self.done + 1, ROUND_S
                self.next_round, self.idle_since = self.world.now + GAP_S, self.world.now
            elif self._over(idle=False):
                self.stop()

    def rest(self) -> None:
        assert self.idle_since is not None
        if self.world.now - self.idle_since >= IDLE_S or self._over(idle=True):
            self.stop()

    def stop(self) -> None:
        if self.worker is not None:
            space, start, _ = self.world.workers[self.worker]
            self.world.workers[self.worker] = (space, start, self.world.now)
            self.worker = None
        if self.ticket is not None:
            del self.world.tickets[self.name]
            self.ticket = None

    def _has_work(self) -> bool:
        return self.world.now >= self.next_round

    def _live(self) -> list[Ticket]:
        return [
            ticket
            for name, ticket in self.world.tickets.items()
            if name.partition(":")[0] == (self.shared or self.name)
        ]

    def _allies(self) -> frozenset[int]:
        return frozenset(pid for ticket in self._live() for pid in ticket.pids)

    def _may_begin(self) -> bool:
        if self.shared is None:
            return True
        if self.ticket is None:
            self.world.pid += 1
            self._ticket(number=self.world.pid, owner=self.owner)
        assert self.ticket is not None
        if not standing(self._live(), self.ticket.number, None).may_run:
            return False
        self._ticket(running=True)
        return True

    def _over(self, idle: bool) -> bool:
        if self.ticket is None:
            return False
        ran_s = self.world.now - self.began
        return must_hand_over(self._live(), self.ticket.number, None, ran_s, idle)

    def _ticket(self, **changes: Any) -> None:
        if self.shared is not None:
            self.ticket = replace(self.ticket or Ticket(0, ""), **changes)
            self.world.tickets[self.name] = self.ticket


def run(
    volunteers: list[Volunteer], world: World, hours: float, seed: int, jitter_s: float = 0.2
) -> list[float]:
    """Let them live; the lengths of all spans in which nobody trained. jitter_s: 0 is in step."""
    rng = random.Random(seed)
    due = {id(v): 10 * rng.uniform(0, jitter_s) for v in volunteers}
    quiet, quiets, trained = 0.0, [], 0.0
    while world.now < hours * 3600:
        first = min(volunteers, key=lambda v: due[id(v)])
        world.now = due[id(first)]
        due[id(first)] += LOOK_S + rng.uniform(0, jitter_s)
        first.look()
        total = sum(v.trained_s for v in volunteers)
        if total > trained:
            quiets.append(world.now - quiet)
            quiet, trained = world.now, total
    return [*quiets, world.now - quiet]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    device = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetGraphicsRunningProcesses=lambda _: [],
        nvmlDeviceGetComputeRunningProcesses=lambda _: [
            SimpleNamespace(pid=pid, usedGpuMemory=None) for pid in made.listed()
        ],
    )
    monkeypatch.setitem(sys.modules, "pynvml", device)
    monkeypatch.setattr(gpu_module, "_name", made.name)
    return made


def neighbours(world: World, count: int, **how: Any) -> list[Volunteer]:
    return [
        Volunteer(
            f"{how['shared'] or f'own{place}'}:{place}",
            how["owners"][place],
            how["spaces"][place],
            how["shared"],
            world,
            MachineLimits(lots=bytes([place, how.get("draw", 0)])),
        )
        for place in range(count)
    ]


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize(
    ("owners", "spaces", "shared"),
    [
        ("111", "hhh", "dir"),  # three volunteers of one owner: `nomoat try`
        ("123", "hhh", "dir"),  # three people's on one machine
        ("111", "abc", "dir"),  # containers that share the folder of tickets
    ],
)
def test_where_there_are_turns_the_gpu_is_never_idle_and_shared_fairly(
    world: World, count: int, owners: str, spaces: str, shared: str
) -> None:
    everybody = neighbours(world, count, owners=owners, spaces=spaces, shared=shared)
    quiets = run(everybody, world, 1.0, seed=count)
    breaks_s = BREAK.total_seconds() if spaces != "hhh" else 0.0  # others might be there
    assert max(quiets) < 2 * (APPEARS_S + GAP_S) + breaks_s
    rounds = [volunteer.done for volunteer in everybody]
    assert min(rounds) >= 3
    assert max(rounds) - min(rounds) <= 2


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("draw", range(2))
def test_containers_that_know_nothing_of_each_other_do_not_wait_for_ever(
    world: World, count: int, draw: int
) -> None:
    everybody = neighbours(world, count, owners="123", spaces="abc", shared=None, draw=draw)
    quiets = run(everybody, world, HOURS, seed=draw, jitter_s=0.2 * draw)
    assert max(quiets) < 1800  # two that start at once both yield, and draw lots for the next time
    assert min(volunteer.done for volunteer in everybody) >= 3
    trained_s = sum(volunteer.trained_s for volunteer in everybody)
    assert trained_s > (0.4 if count > 1 else 0.7) * HOURS * 3600


def test_without_lots_they_would(world: World) -> None:
    """The test of the test: in step, they yield to each other as they used to."""
    everybody = neighbours(world, 2, owners="12", spaces="ab", shared=None)
    for volunteer in everybody:
        volunteer.limits = MachineLimits()
        volunteer.decision = None
    run(everybody, world, 1.0, seed=1, jitter_s=0.0)
    assert [volunteer.done for volunteer in everybody] == [0, 0]
