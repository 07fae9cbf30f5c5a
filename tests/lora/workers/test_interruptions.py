"""Between two pieces of work a worker obeys, saves now and then, and rests its share."""

from __future__ import annotations

import itertools
import multiprocessing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

import pytest

from nomoat.lora.device.backends import Device
from nomoat.lora.training.checkpoint import Paused, RunPosition, TrainingCheckpoint, read
from nomoat.lora.training.steps import TrainingStep
from nomoat.lora.workers import interruptions
from nomoat.lora.workers.interruptions import Between, Telling, WorkerOrders
from nomoat.lora.workers.jobs import Pause, ShardJob, Throttle

DEVICE = Device(cast("Any", "cpu"))  # a processor waits for nothing
JOB = b"j" * 32


def taken() -> TrainingCheckpoint:
    import torch

    return TrainingCheckpoint(JOB, RunPosition(1, 0, 5, 2.0, (0.5,)), {"values": torch.zeros(2)})


def desk(step_s: float = 0.0) -> tuple[WorkerOrders, Connection]:
    """A desk whose clock moves by `step_s` each time it is read."""
    here, there = multiprocessing.Pipe()
    ticks = itertools.count()
    return WorkerOrders(there, clock=lambda: next(ticks) * step_s), here


def test_a_pause_writes_the_checkpoint_and_ends_the_work(tmp_path: Path) -> None:
    made, parent = desk()
    between = Between(made, tmp_path / "c", DEVICE)
    between(taken)
    assert not (tmp_path / "c").exists()
    parent.send(Pause())
    with pytest.raises(Paused):
        between(taken)
    assert read(tmp_path / "c", JOB) is not None


def test_a_pause_is_seen_in_the_middle_of_a_rest(tmp_path: Path) -> None:
    made, parent = desk(0.01)
    between = Between(made, tmp_path / "c", DEVICE)
    parent.send(Throttle(0.01))
    parent.send(Pause())
    with pytest.raises(Paused):
        between(taken)
    made.share = 0.01
    parent.send(Pause())
    with pytest.raises(Paused):
        between(taken)


def test_a_parent_that_is_gone_is_a_pause_too(tmp_path: Path) -> None:
    made, parent = desk()
    parent.close()
    with pytest.raises(Paused):
        Between(made, tmp_path / "c", DEVICE)(taken)
    assert (tmp_path / "c").exists()
    made, _parent = desk()
    made.orphaned.set()
    with pytest.raises(Paused):
        Between(made, None, DEVICE)(taken)


def test_a_run_is_saved_once_in_a_while_and_a_full_disk_does_not_end_it(tmp_path: Path) -> None:
    made, _parent = desk(2 * interruptions.SAVE_EVERY_S)
    Between(made, tmp_path / "c", DEVICE)(taken)
    assert (tmp_path / "c").exists()
    (tmp_path / "file").write_text("not a folder")
    Between(made, tmp_path / "file" / "c", DEVICE)(taken)


def test_a_pause_stands_until_a_job_was_ended_by_it() -> None:
    made, parent = desk()
    parent.send(Pause())
    assert made.look()
    assert made.look()
    made.pausing = False
    assert not made.look()


def test_the_parent_is_told_when_there_is_something_to_lay_down() -> None:
    made, parent = desk()
    assert not made.training
    made.begin()
    assert made.training
    assert parent.recv() == ("begun", None)


def test_orders_need_no_job_and_jobs_are_no_orders() -> None:
    made, _parent = desk()
    assert made.obey(Throttle(0.25))
    assert made.share == 0.25
    assert not made.pausing
    assert made.obey(Pause())
    assert made.pausing
    assert not made.obey(ShardJob(Path("s"), 8))


def test_steps_are_told_once_a_second_and_the_others_are_not_even_read() -> None:
    made, parent = desk(0.4)
    telling, read_steps = Telling(made), []

    def step(number: int) -> TrainingStep:
        read_steps.append(number)
        return TrainingStep(number, 6, 2.0, 1.0)

    for number in range(1, 7):
        telling(lambda number=number: step(number))
    assert read_steps == [1, 4]
    assert [parent.recv()[1].step for _ in range(2)] == [1, 4]
    assert not parent.poll()


def test_a_parent_that_is_gone_needs_no_steps() -> None:
    made, parent = desk()
    parent.close()
    Telling(made)(lambda: TrainingStep(1, 2, 2.0, 1.0))
