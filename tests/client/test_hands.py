"""The worker starts when asked, ends when idle, and is never taken away in the middle of work."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from nomoat.aggregation.adapter import Adapter, AdapterSpec, LayerSpec
from nomoat.aggregation.messages import TrainSettings
from nomoat.client import hands as module
from nomoat.client.hands import Hands
from nomoat.client.keepsakes import DiskKeepsakes
from nomoat.client.shards import Shards

SPEC = AdapterSpec((LayerSpec("q", 4, 3, 2),), 2, 4.0, target_modules=("q",))
ADAPTER = Adapter(SPEC, np.zeros(SPEC.size, np.float32))


class Measured:
    loss, tokens = 1.5, 10


class FakePool:
    made: ClassVar[list[FakePool]] = []
    servers_ended: ClassVar[int] = 0

    @classmethod
    def end_server(cls) -> None:
        assert all(pool.closed.is_set() for pool in cls.made)
        cls.servers_ended += 1

    def __init__(self, model: str, workers: int, device: str) -> None:
        self.model, self.closed, self.jobs = model, threading.Event(), []  # type: ignore[var-annotated]
        self.futures: list[Future[Any]] = []
        FakePool.made.append(self)

    def submit(self, job: object) -> Future[Any]:
        assert not self.closed.is_set()
        self.jobs.append(job)
        future: Future[Any] = Future()
        self.futures.append(future)
        if self.model != "slow":
            future.set_result(Measured())
        return future

    def close(self, now: bool = False) -> None:
        self.closed.set()


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    FakePool.made = []
    FakePool.servers_ended = 0
    monkeypatch.setattr(module, "Pool", FakePool)
    monkeypatch.setattr(module, "end_fork_server", FakePool.end_server)


def hands(model: str = "quick", idle_s: float = 0.05) -> Hands:
    kept = DiskKeepsakes(Path("kept"))
    return Hands(model, Shards(Path("t"), Path("h"), 5, 2), kept, idle_s=idle_s)


def test_no_worker_until_there_is_work() -> None:
    hands()
    assert FakePool.made == []


def test_work_is_done_on_the_rows_that_were_kept_and_the_worker_then_ends() -> None:
    one = hands()
    assert one.measure(ADAPTER, TrainSettings()) == (1.5, 10)
    (pool,) = FakePool.made
    assert pool.jobs[0].shard == Path("h")
    assert pool.closed.wait(5)
    with one._lock:  # what workers are forked from holds the base, too, and is ended with them
        assert FakePool.servers_ended == 1
    one.measure(ADAPTER, TrainSettings())  # and a new one starts when it is needed again
    assert len(FakePool.made) == 2


def test_a_worker_that_works_longer_than_the_idle_time_is_not_ended() -> None:
    one = hands("slow", idle_s=0.01)
    thread = threading.Thread(target=one.measure, args=(ADAPTER, TrainSettings()))
    thread.start()
    while not (FakePool.made and FakePool.made[0].futures):
        pass
    (pool,) = FakePool.made
    assert not pool.closed.wait(0.1)
    pool.futures[0].set_result(Measured())
    thread.join(5)
    assert pool.closed.wait(5)


def test_closing_ends_the_worker_at_once() -> None:
    one = hands(idle_s=60)
    one.measure(ADAPTER, TrainSettings())
    one.close()
    assert FakePool.made[0].closed.is_set()
