"""Trainings are gathered into the same groups whoever comes first, and nobody waits for ever."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nomoat.aggregation.errors import LocalProtocolError, NomoatError
from nomoat.aggregation.protocol.adapter import AdapterSpec, LayerSpec
from nomoat.aggregation.protocol.messages import TrainSettings
from nomoat.lora.memory.joint_plan import JointPlan
from nomoat.lora.training.train import Trained
from nomoat.lora.workers.jobs import JointJob, TrainJob
from nomoat.simulations.network.gathering import TrainingGathering

SPEC = AdapterSpec((LayerSpec("q", 2, 2, 1),), 1, 2.0, False, ("q",))


def job(place: int) -> TrainJob:
    return TrainJob(Path(f"{place:05d}"), SPEC, np.zeros(4, np.float32), TrainSettings(), b"s")


def trained(part: TrainJob) -> Trained:
    return Trained(np.full(4, float(part.shard.name), np.float32), 1, 1, 1.0, 1.0, 0.0)


@dataclass
class Workers:
    """A pool that answers at once; whoever's number is in `failing` fails alone."""

    failing: frozenset[int] = frozenset()
    closed: bool = False
    groups: list[list[int]] = field(default_factory=list)

    def submit(self, joint: JointJob) -> Future[Any]:
        if self.closed:
            raise LocalProtocolError("the worker pool is closed")
        numbers = [int(part.shard.name) for part in joint.parts]
        self.groups.append(numbers)
        done: Future[Any] = Future()
        outcomes = [
            NomoatError(f"{number} diverged") if number in self.failing else trained(part)
            for number, part in zip(numbers, joint.parts, strict=True)
        ]
        threading.Timer(0.0, done.set_result, (outcomes,)).start()
        return done


def served(workers: Workers, order: list[int], at_once: int) -> dict[int, Any]:
    """What each volunteer gets, when a grid of `at_once` threads serves them in this order."""
    pool: Any = workers
    gathering = TrainingGathering(pool, JointPlan(2), at_once)
    lock, left = threading.Lock(), [len(order)]
    gathering.unanswered(len(order))

    def serve(place: int) -> Any:
        try:
            return gathering.submit(job(place)).result()
        except NomoatError as problem:
            return str(problem)
        finally:
            with lock:
                left[0] -= 1
                gathering.unanswered(left[0])

    with ThreadPoolExecutor(at_once) as threads:
        return dict(zip(order, threads.map(serve, order), strict=True))


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [3, 2, 1, 0, 4]], ids=["ordered", "mixed"])
def test_groups_are_the_same_whichever_volunteer_is_faster(order: list[int]) -> None:
    workers = Workers()
    found = served(workers, order, at_once=4)
    assert workers.groups == [[0, 1], [2, 3], [4]]
    assert {place: int(one.vector[0]) for place, one in found.items()} == {n: n for n in order}


def test_only_who_failed_has_failed() -> None:
    found = served(Workers(failing=frozenset({1})), [0, 1, 2], at_once=3)
    assert found[1] == "1 diverged"
    assert [found[place].steps for place in (0, 2)] == [1, 1]


def test_who_is_held_back_is_told_when_the_pool_is_closed() -> None:
    workers = Workers()
    pool: Any = workers
    gathering = TrainingGathering(pool, JointPlan(4), 4)
    gathering.unanswered(4)
    held = gathering.submit(job(0))
    workers.closed = True
    gathering.close()
    with pytest.raises(LocalProtocolError, match="closed"):
        held.result()
