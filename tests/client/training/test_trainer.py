"""The worker starts when asked, ends when idle, and is never taken away in the middle of work."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from builders import SPEC, evaluate_task, train_task
from nomoat.aggregation.errors import BadData, DoesNotFit, LocalProtocolError, NomoatError
from nomoat.aggregation.methods.base import Factors, LocalStart
from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.aggregation.protocol.messages import (
    TrainSettings,
)
from nomoat.client.data.split import Split
from nomoat.client.round.work import EvaluateWork, Overtaken, TrainWork
from nomoat.client.training import round_jobs
from nomoat.client.training import shared_worker as module
from nomoat.client.training.base_loss import BaseLossFile, rows_digest
from nomoat.client.training.personal_state import DiskPersonalStates
from nomoat.client.training.shared_worker import TURN, SharedWorker
from nomoat.client.training.trainer import Trainer
from nomoat.lora.data.row_counts import RowUse
from nomoat.lora.training.checkpoint import Paused
from nomoat.lora.training.steps import TrainingStep
from nomoat.lora.workers.jobs import TrainJob

ADAPTER = Adapter(SPEC, np.zeros(SPEC.size, np.float32))


class Measured:
    loss, tokens = 1.5, 10
    rows: ClassVar[RowUse | None] = None


class FakePool:
    made: ClassVar[list[FakePool]] = []

    def __init__(self, model: str, workers: int, device: str, **how: Any) -> None:
        self.model, self.closed, self.jobs = model, threading.Event(), []  # type: ignore[var-annotated]
        self.futures: list[Future[Any]] = []
        self.shares: list[float] = []
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

    def pause(self, grace_s: float) -> None:
        self.closed.set()
        for future in self.futures:
            if not future.done():
                future.set_exception(Paused())

    def limit(self, share: float) -> None:
        self.shares.append(share)

    def tell_of_turns(self, told: Callable[[str | None], None]) -> None:
        self.told = told

    def tell_of_steps(self, told: Callable[[TrainingStep], None]) -> None:
        self.stepped = told

    @property
    def working(self) -> bool:
        return any(not future.done() for future in self.futures)

    @property
    def pids(self) -> frozenset[int]:
        return frozenset()


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    FakePool.made = []
    monkeypatch.setattr(module, "Pool", FakePool)


def trainer(model: str = "quick", idle_s: float = 0.05) -> Trainer:
    return at(SharedWorker(model, idle_s=idle_s))


def at(worker: SharedWorker) -> Trainer:
    return Trainer(worker, Split(Path("t"), Path("h"), 5, 2), DiskPersonalStates(Path("kept")))


def measure(one: Trainer, **settings: Any) -> tuple[float, int]:
    task = evaluate_task(ADAPTER, settings=TrainSettings(**settings))
    loss, tokens, _personal = one.evaluate(EvaluateWork(task, ADAPTER))
    return loss, tokens


def test_no_worker_until_there_is_work() -> None:
    trainer()
    assert FakePool.made == []


def test_work_is_done_on_the_rows_that_were_kept_and_the_worker_then_ends() -> None:
    one = trainer()
    assert measure(one) == (1.5, 10)
    (pool,) = FakePool.made
    assert pool.jobs[0].shard == Path("h")
    assert pool.closed.wait(60)
    measure(one)  # and a new one starts when it is needed again
    assert len(FakePool.made) == 2


def test_a_worker_that_works_longer_than_the_idle_time_is_not_ended() -> None:
    one = trainer("slow", idle_s=0.01)
    thread = threading.Thread(target=measure, args=(one,))
    thread.start()
    while not (FakePool.made and FakePool.made[0].futures):
        pass
    (pool,) = FakePool.made
    assert not pool.closed.wait(0.1)
    pool.futures[0].set_result(Measured())
    thread.join(60)
    assert pool.closed.wait(60)


def test_closing_ends_the_worker_at_once() -> None:
    one = trainer(idle_s=60)
    measure(one)
    one.close()
    assert FakePool.made[0].closed.is_set()


def work() -> TrainWork:
    local = LocalStart(ADAPTER, ADAPTER, None, tuple(x.name for x in SPEC.layers), Factors())
    return TrainWork(train_task(ADAPTER), local, b"seed", b"v" * 32)


def training(one: Trainer) -> tuple[threading.Thread, list[object]]:
    got: list[object] = []

    def run() -> None:
        try:
            got.append(one.train(work()))
        except Exception as problem:  # noqa: BLE001 - the test looks at it
            got.append(problem)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, got


def until(count: int) -> FakePool:
    while len(FakePool.made) < count or not FakePool.made[-1].futures:
        pass
    return FakePool.made[-1]


def test_a_paused_training_goes_on_in_a_new_worker_with_the_same_checkpoint() -> None:
    one = trainer("slow")
    one.checkpoint = Path("held/training")
    thread, got = training(one)
    first = until(1)
    one.pause()
    assert first.closed.is_set()
    assert one.at_work
    assert one.pids == frozenset()
    assert len(FakePool.made) == 1  # nothing begins while paused
    one.resume()
    second = until(2)
    assert second.jobs[0].checkpoint == first.jobs[0].checkpoint == Path("held/training")
    second.futures[0].set_result("done")
    thread.join(60)
    assert got == ["done"]


def test_a_training_nobody_waits_for_any_more_ends_even_while_paused() -> None:
    one = trainer("slow")
    thread, got = training(one)
    until(1)
    one.pause()
    one.overtake()
    thread.join(60)
    assert isinstance(got[0], Overtaken)
    one.resume()
    one.overtake()  # nothing is being done: the next piece of work is not meant
    thread, got = training(one)
    until(2).futures[0].set_result("done")
    thread.join(60)
    assert got == ["done"]


def test_an_evaluation_is_not_waited_for_while_paused() -> None:
    one = trainer()
    one.pause()
    with pytest.raises(NomoatError, match="paused"):
        measure(one)


def test_a_worker_killed_for_memory_is_followed_by_one_that_takes_less() -> None:
    one = trainer("slow")
    thread, got = training(one)
    pool, attempt = until(1), 0
    while thread.is_alive():
        if len(pool.futures) > attempt:
            pool.futures[attempt].set_exception(DoesNotFit("killed"))
            attempt += 1
    thread.join(60)
    jobs = FakePool.made[0].jobs
    sizes = [job.most_tokens for job in jobs if job.most_tokens]
    assert sizes == sorted(sizes, reverse=True)
    assert jobs[-1].checkpointing
    assert isinstance(got[0], DoesNotFit)
    assert "close other programs" in str(got[0])


def test_an_evaluation_takes_no_more_at_once_than_a_training_may() -> None:
    def never(_: TrainJob) -> TrainJob:
        raise DoesNotFit("too large")

    one = trainer()
    one.fit = lambda job: replace(job, most_tokens=300)
    measure(one)
    one.fit = never
    measure(one, seq_len=64)
    assert [job.most_tokens for job in FakePool.made[0].jobs] == [300, 64]


def test_a_duty_is_kept_by_every_later_worker() -> None:
    one = trainer()
    one.limit(0.5)
    measure(one)
    assert FakePool.made[0].shares == [0.5]
    one.limit(0.25)
    assert FakePool.made[0].shares == [0.5, 0.25]


def test_two_communities_take_turns_at_one_worker() -> None:
    worker = SharedWorker("slow", idle_s=60)
    one, other = at(worker), at(worker)
    turns: list[str | None] = []
    one.on_queued = other.on_queued = turns.append
    first, got = training(one)
    pool = until(1)
    assert turns == []
    second, got_too = training(other)
    second.join(0.2)
    assert second.is_alive()
    assert len(pool.futures) == 1  # it waits for its turn
    assert turns == [TURN]
    assert one.working != other.working
    pool.futures[0].set_result("done")
    first.join(60)
    while len(pool.futures) < 2:
        pass
    pool.futures[1].set_result("done, too")
    second.join(60)
    assert (got, got_too) == (["done"], ["done, too"])
    assert turns == [TURN, None]
    assert len(FakePool.made) == 1


def test_a_pause_of_one_community_leaves_the_others_worker_alone() -> None:
    worker = SharedWorker("slow", idle_s=60)
    one, other = at(worker), at(worker)
    thread, got = training(one)
    pool = until(1)
    other.pause()
    assert not pool.closed.is_set()
    waiting, got_too = training(other)
    other.overtake()  # while it waits to be resumed
    waiting.join(60)
    assert isinstance(got_too[0], Overtaken)
    one.pause()
    assert pool.closed.is_set()
    one.resume()
    until(2).futures[0].set_result("done")
    thread.join(60)
    assert got == ["done"]


def test_one_that_waits_for_its_turn_can_be_paused_and_goes_on_later() -> None:
    worker = SharedWorker("slow", idle_s=60)
    one, other = at(worker), at(worker)
    first, _ = training(one)
    pool = until(1)
    second, got = training(other)
    while not other.at_work:
        pass
    other.pause()
    pool.futures[0].set_result("done")
    first.join(60)
    assert len(pool.futures) == 1
    assert not pool.closed.is_set()
    other.resume()
    while len(pool.futures) < 2:
        pass
    pool.futures[1].set_result("done, too")
    second.join(60)
    assert got == ["done, too"]


def test_each_community_has_its_own_duty() -> None:
    worker = SharedWorker("quick", idle_s=60)
    one, other = at(worker), at(worker)
    one.limit(0.5)
    measure(one)
    measure(other)
    measure(one)
    assert FakePool.made[0].shares == [0.5, 1.0, 0.5]


def test_a_model_that_is_away_for_a_while_does_not_keep_the_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = SharedWorker("quick", idle_s=60)
    one, other = at(worker), at(worker)

    def away(*_: Any, **__: Any) -> None:
        raise BadData("no model at /media/stick")

    monkeypatch.setattr(module, "Pool", away)
    with pytest.raises(BadData):
        measure(one)
    monkeypatch.setattr(module, "Pool", FakePool)
    assert measure(other) == (1.5, 10)
    assert measure(one) == (1.5, 10)


def test_a_job_that_is_wrong_is_not_tried_for_ever() -> None:
    one = trainer("slow")
    thread, got = training(one)
    until(1).futures[0].set_exception(LocalProtocolError("another adapter"))
    thread.join(60)
    assert isinstance(got[0], LocalProtocolError)


def test_a_worker_that_is_just_ending_is_still_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else its last moments on a GPU would be taken for a stranger's program."""
    worker = SharedWorker("quick", idle_s=60)
    one = at(worker)
    measure(one)
    seen = []
    monkeypatch.setattr(FakePool, "pids", property(lambda _: frozenset({7})))
    monkeypatch.setattr(FakePool, "pause", lambda *_: seen.append(worker.pids))
    one.pause()
    assert seen == [frozenset({7})]
    assert worker.pids == frozenset()


def test_work_that_was_overtaken_while_it_was_prepared_is_not_begun() -> None:
    one = trainer("slow")
    one.fit = lambda job: one.overtake() or job  # type: ignore[func-returns-value]
    thread, got = training(one)
    thread.join(60)
    assert isinstance(got[0], Overtaken)
    assert FakePool.made == []


def test_an_evaluation_that_was_killed_for_memory_is_done_in_smaller_pieces() -> None:
    one = trainer("slow")
    one.fit = lambda job: replace(job, most_tokens=4 * job.settings.seq_len)
    got: list[Any] = []
    thread = threading.Thread(target=lambda: got.append(measure(one)))
    thread.start()
    pool = until(1)
    for attempt in range(2):
        while len(pool.futures) <= attempt:
            pass
        pool.futures[attempt].set_exception(DoesNotFit("killed"))
    while len(pool.futures) < 3:
        pass
    pool.futures[2].set_result(Measured())
    thread.join(60)
    assert got == [(1.5, 10)]
    length = TrainSettings().seq_len
    assert [job.most_tokens for job in pool.jobs] == [4 * length, 2 * length, length]


def test_rows_that_are_not_used_are_told_of_training_and_measuring() -> None:
    told: list[tuple[str, RowUse]] = []
    one = trainer()
    one.on_rows = lambda use, rows: told.append((use, rows))
    measure(one)
    assert told == []  # nothing is known of them
    use = RowUse(9, 64, 1, ())
    Measured.rows = use
    try:
        measure(one)
        one.run(round_jobs._job(work(), one.split, ADAPTER))
    finally:
        Measured.rows = None
    assert told == [("measure", use), ("train", use)]


@pytest.mark.parametrize("measuring", [False, True])
def test_training_and_measuring_are_both_done_on_the_rows_of_now_or_not_at_all(
    measuring: bool,
) -> None:
    one, asked = trainer(), list[bool]()

    def of_now(current: Split, *, measuring: bool) -> Split:
        asked.append(measuring)
        if len(asked) > 1:
            raise BadData("the data: it is gone")
        return Split(Path("t2"), Path("h2"), 5, 2)

    one.rows_of_now = of_now

    def do() -> object:
        return measure(one) if measuring else one.train(work())

    do()
    assert one.split.heldout == Path("h2")
    with pytest.raises(BadData, match="it is gone"):
        do()
    assert asked == [measuring, measuring]
    assert [job.shard.name for job in FakePool.made[0].jobs] == ["h2" if measuring else "t2"]


def with_rows(one: Trainer, folder: Path) -> BaseLossFile:
    """Rows to measure with in `folder`, and the file of the base's loss on them."""
    one.split, one.base_loss = replace(one.split, heldout=folder / "h"), BaseLossFile.within(folder)
    one.split.heldout.write_text("rows")
    return one.base_loss


def test_the_base_is_measured_on_the_same_rows_once_and_anew_when_they_change(
    tmp_path: Path,
) -> None:
    one = trainer(idle_s=60)
    file = with_rows(one, tmp_path)
    for text in ("rows", "other rows"):
        one.split.heldout.write_text(text)
        measure(one)
        rows = rows_digest(one.split.heldout, TrainSettings().seq_len)
        while file.loss(rows) is None:
            pass
        assert file.loss(rows) == 1.5
        measure(one)
    one.close()
    assert [job.vector is None for job in FakePool.made[0].jobs] == [False, True, False] * 2


def test_an_answer_never_waits_for_the_base_and_no_other_rows_loss_is_kept(tmp_path: Path) -> None:
    one = trainer("slow", idle_s=60)
    file = with_rows(one, tmp_path)
    asked = threading.Thread(target=measure, args=(one,))
    asked.start()
    pool = until(1)
    pool.futures[0].set_result(Measured())
    asked.join(60)
    assert not asked.is_alive()
    while len(pool.futures) < 2:
        pass
    one.split.heldout.write_text("edited meanwhile")
    pool.futures[1].set_result(Measured())
    one.close()
    assert file.loss() is None
