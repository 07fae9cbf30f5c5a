"""Orders and the machine's state become one decision, and the hands follow it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from nomoat.client.machine import owner_orders
from nomoat.client.machine.governor import FACTS_S, Governor, OwnerLimits
from nomoat.client.machine.policy import Action, Decision
from nomoat.client.machine.readings import GpuProgram, MachineLimits, Orders, Readings

START = datetime(2026, 1, 5, 14, 2, tzinfo=UTC)
GAME = GpuProgram("steam", compute=False, busy_share=0.9)


@dataclass
class Trainer:
    at_work: bool = True
    did: list[str] = field(default_factory=list)

    def pause(self) -> None:
        self.did.append("pause")

    def resume(self) -> None:
        self.did.append("resume")

    def limit(self, share: float) -> None:
        self.did.append(f"limit {share:.2f}")


@dataclass
class World:
    """A machine whose facts a test changes, and a clock that it moves."""

    folder: Path
    limits: MachineLimits = field(default_factory=MachineLimits)
    cpu_share: float = 1.0
    seconds: float = 0.0
    looks: int = 0
    readings: dict[str, object] = field(default_factory=dict)
    trainer: Trainer = field(default_factory=Trainer)
    told: list[Decision] = field(default_factory=list)
    handing_over: bool = False

    def __post_init__(self) -> None:
        self.governor = Governor(
            self.folder,
            self.limits,
            self.look,
            self.trainer,
            lambda: self.handing_over,
            self.told.append,
            self.now,
            self.cpu_share,
            lambda: self.seconds,
        )

    def now(self) -> datetime:
        return START + timedelta(seconds=self.seconds)

    def look(self, now: datetime) -> Readings:
        self.looks += 1
        return Readings(now, **self.readings)  # type: ignore[arg-type]

    def turn(self, after_s: float = 0.0) -> Action:
        self.seconds += after_s
        return self.governor.turn()


def test_a_pause_reaches_the_hands_before_the_turn_ends_and_resume_takes_it_back(
    tmp_path: Path,
) -> None:
    world = World(tmp_path)
    assert world.turn() is Action.TRAIN
    owner_orders.write(tmp_path, Orders(paused=True))
    assert world.turn() is Action.WAIT
    assert world.turn() is Action.WAIT
    owner_orders.write(tmp_path, Orders())
    assert world.turn() is Action.TRAIN
    assert world.trainer.did == ["resume", "pause", "resume"]  # each once


def test_a_game_stops_the_training_and_status_is_told_why_and_since_when(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.turn()
    world.readings["gpu_programs"] = (GAME,)
    assert world.turn(FACTS_S) is Action.WAIT
    last = world.told[-1]
    assert last.reason == "GPU in use by another program (steam)"
    assert last.since == world.now()
    world.turn(FACTS_S)
    assert world.told[-1] is last  # nothing new to tell


def test_orders_are_seen_at_once_though_the_machine_is_looked_at_seldom(tmp_path: Path) -> None:
    world = World(tmp_path)
    for _ in range(10):
        world.turn(FACTS_S / 10 - 1e-9)
    assert world.looks == 1
    owner_orders.write(tmp_path, Orders(paused=True))
    assert world.turn() is Action.WAIT
    assert world.looks == 1


def test_finish_waits_for_the_round_and_its_handing_over_and_lets_nothing_new_begin(
    tmp_path: Path,
) -> None:
    world = World(tmp_path)
    owner_orders.write(tmp_path, Orders(finish=True))
    assert world.turn() is Action.TRAIN
    assert world.governor.may_begin(training=False)
    assert not world.governor.may_begin(training=True)
    world.trainer.at_work, world.handing_over = False, True
    assert world.turn() is Action.TRAIN
    world.handing_over = False
    stop = threading.Event()
    world.governor.run(stop)
    assert stop.is_set()


def test_a_processor_cap_becomes_a_duty(tmp_path: Path) -> None:
    world = World(tmp_path, cpu_share=0.25)
    world.turn()
    assert "limit 0.25" in world.trainer.did


def test_a_hot_machine_works_less_before_it_has_to_stop(tmp_path: Path) -> None:
    world = World(tmp_path, MachineLimits(max_temperature_c=80.0))
    world.readings["temperature_c"] = 79.5
    actions = {world.turn(FACTS_S) for _ in range(20)}
    assert actions == {Action.TRAIN}
    shares = [float(did.split()[1]) for did in world.trainer.did if did.startswith("limit")]
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] < 1.0
    world.readings["temperature_c"] = 81.0
    assert world.turn(FACTS_S) is Action.WAIT


def test_without_a_policy_nothing_is_trained(tmp_path: Path) -> None:
    world, stop = World(tmp_path), threading.Event()

    def broken(_now: datetime) -> Readings:
        stop.set()
        raise RuntimeError("a driver went mad")

    world.governor.look = broken
    world.governor.run(stop)
    assert world.trainer.did == ["pause"]


def test_after_a_turn_that_failed_training_goes_on_and_until_then_status_says_why(
    tmp_path: Path,
) -> None:
    world, stop = World(tmp_path), threading.Event()
    world.turn()
    look, looked = world.look, threading.Event()

    def broken(now: datetime) -> Readings:
        world.governor.look = look
        raise OSError("the bus is gone")

    def told(decision: Decision) -> None:
        world.told.append(decision)
        if "failed" in decision.reason:
            looked.set()

    world.governor.look, world.governor.told = broken, told
    world.seconds += 2 * FACTS_S
    thread = threading.Thread(target=world.governor.run, args=(stop,))
    thread.start()
    assert looked.wait(60)
    while world.trainer.did[-1] != "resume":
        pass
    stop.set()
    thread.join()
    assert world.trainer.did == ["resume", "pause", "resume"]
    assert [decision.action for decision in world.told][-2:] == [Action.WAIT, Action.TRAIN]


def test_limits_that_were_changed_hold_from_the_next_look_on(tmp_path: Path) -> None:
    world = World(tmp_path, cpu_share=0.5)
    world.turn()
    assert world.turn(FACTS_S) is Action.TRAIN
    changed = [OwnerLimits(MachineLimits(max_temperature_c=70.0), 1.0)]
    world.governor.reread = lambda: changed.pop() if changed else None
    world.readings["temperature_c"] = 90.0
    assert world.turn() is Action.TRAIN
    assert world.turn(FACTS_S) is Action.WAIT
    assert world.told[-1].reason == "temperature 90 °C, limit 70 °C"


def test_a_share_of_the_time_that_was_lifted_is_lifted_for_the_hands(tmp_path: Path) -> None:
    world = World(tmp_path, cpu_share=0.5)
    world.turn()
    world.turn(FACTS_S)
    assert "limit 0.50" in world.trainer.did
    changed = [OwnerLimits(MachineLimits(), 1.0)]
    world.governor.reread = lambda: changed.pop() if changed else None
    world.turn(FACTS_S)
    assert world.trainer.did[-1] == "limit 1.00"
