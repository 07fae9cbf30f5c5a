"""What a volunteer does for a task: whole jobs for its worker, and what it keeps afterwards."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builders import evaluate_task, train_task
from nomoat.aggregation import methods
from nomoat.aggregation.methods.base import LocalRound
from nomoat.aggregation.protocol.adapter import Adapter, AdapterSpec, LayerSpec
from nomoat.aggregation.protocol.messages import (
    AdapterShape,
    TrainSettings,
)
from nomoat.client.data.split import Split
from nomoat.client.round.work import EvaluateWork, TrainWork
from nomoat.client.training import round_jobs
from nomoat.client.training.personal_state import DiskPersonalStates
from nomoat.lora.training.evaluate import MeasuredLoss
from nomoat.lora.training.moments import Moments
from nomoat.lora.training.train import Trained
from nomoat.lora.workers.jobs import EvaluateJob, TrainJob

SPEC = AdapterSpec((LayerSpec("model.q", 6, 5, 4),), 4, 8.0, target_modules=("q",))
START = Adapter(SPEC, np.linspace(-0.5, 0.5, SPEC.size, dtype=np.float32))
SPLIT = Split(Path("train"), Path("heldout"), 9, 1)


def broadcast(number: int) -> Adapter:
    """Of round `number`, where all rounds before were committed; START in the first."""
    return Adapter(SPEC, START.vector + np.float32(0.25 * (number - 1)))


@dataclass
class Worker:
    """Training adds 1 to every value; a loss is the sum of values."""

    jobs: list[Any] = field(default_factory=list)

    def submit(self, job: Any) -> Future[Any]:
        self.jobs.append(job)
        future: Future[Any] = Future()
        if isinstance(job, TrainJob):
            kept = Moments(job.vector, job.vector, 1, 1) if job.settings.keep_moments else None
            future.set_result(Trained(job.vector + 1, 2, 30, 4.0, 3.0, 0.1, kept))
        else:
            future.set_result(MeasuredLoss(float(job.vector.sum()), 10))
        return future


def train_work(
    number: int,
    method: str = "fedavg",
    rank: int = 4,
    start: Adapter | None = None,
    **settings: Any,
) -> TrainWork:
    start = broadcast(number) if start is None else start
    local = methods.get(method).start(start, LocalRound(number, rank, b"seed"))
    told = TrainSettings(**settings)
    task = train_task(start, number, method=method, shape=AdapterShape.of(SPEC), settings=told)
    return TrainWork(task, local, bytes([number]) * 32, b"v" * 32)


def evaluate_work(number: int, **settings: Any) -> EvaluateWork:
    candidate = broadcast(number + 1)
    task = evaluate_task(candidate, number, settings=TrainSettings(**settings))
    return EvaluateWork(task, candidate)


@pytest.fixture
def worker() -> Worker:
    return Worker()


def test_without_anything_to_keep_nothing_is_written(tmp_path: Path, worker: Worker) -> None:
    kept = DiskPersonalStates(tmp_path / "kept")
    done = round_jobs.train(train_work(1), SPLIT, kept, worker.submit)
    assert np.array_equal(done.vector, START.vector + 1)
    assert not kept.folder.exists()
    loss, tokens, personal = round_jobs.evaluate(evaluate_work(1), SPLIT, kept, worker.submit)
    assert (tokens, personal) == (10, None)
    assert loss == pytest.approx(float(broadcast(2).vector.sum()))
    train, evaluate = worker.jobs
    assert (train.shard, evaluate.shard) == (SPLIT.train, SPLIT.heldout)
    assert (train.frozen, train.moments) == (None, None)


def test_a_lower_rank_trains_its_modules_on_top_of_the_others(
    tmp_path: Path, worker: Worker
) -> None:
    asked = train_work(1, rank=1)
    round_jobs.train(asked, SPLIT, DiskPersonalStates(tmp_path), worker.submit)
    (job,) = worker.jobs
    assert job.spec.rank == 1
    assert job.frozen.spec.rank == 3
    assert job.frozen.digest == asked.local.frozen.digest  # type: ignore[union-attr]


def test_moments_go_on_in_the_next_round_and_a_round_begun_again_has_the_same(
    tmp_path: Path, worker: Worker
) -> None:
    kept = DiskPersonalStates(tmp_path)
    for number in (1, 2, 2):
        round_jobs.train(train_work(number, keep_moments=True), SPLIT, kept, worker.submit)
    first, second, again = (job.moments for job in worker.jobs)
    assert first is None
    assert second is not None
    assert np.array_equal(second.mean, START.vector)
    assert np.array_equal(second.mean, again.mean)


def test_moments_of_other_modules_are_not_used(tmp_path: Path, worker: Worker) -> None:
    kept = DiskPersonalStates(tmp_path)
    round_jobs.train(train_work(1, rank=4, keep_moments=True), SPLIT, kept, worker.submit)
    round_jobs.train(train_work(2, rank=2, keep_moments=True), SPLIT, kept, worker.submit)
    assert worker.jobs[1].moments is None


def test_ones_own_b_goes_on_with_the_communitys_a(tmp_path: Path, worker: Worker) -> None:
    kept = DiskPersonalStates(tmp_path)
    asked = {"method": "local-B", "personal": "local-B"}
    round_jobs.train(train_work(1, **asked), SPLIT, kept, worker.submit)
    round_jobs.train(train_work(2, **asked), SPLIT, kept, worker.submit)
    first, second = (Adapter(SPEC, job.vector) for job in worker.jobs)
    (_, a0, b0), (_, a1, b1) = next(first.factors()), next(second.factors())
    assert np.array_equal(a1, a0 + np.float32(0.25))  # the broadcast's, not its own
    assert np.array_equal(b1, b0 + 1)
    loss, _, personal = round_jobs.evaluate(
        evaluate_work(2, personal="local-B"), SPLIT, kept, worker.submit
    )
    assert personal is not None
    assert personal - loss == pytest.approx(1.5 * b0.size, rel=1e-5)


def test_ones_own_b_of_an_abandoned_round_is_forgotten_with_it(
    tmp_path: Path, worker: Worker
) -> None:
    kept = DiskPersonalStates(tmp_path)
    asked = {"method": "local-B", "personal": "local-B"}
    round_jobs.train(train_work(1, **asked), SPLIT, kept, worker.submit)
    for number in (2, 3):  # round 2 was abandoned: 3 has the same broadcast
        round_jobs.train(
            train_work(number, start=broadcast(2), **asked), SPLIT, kept, worker.submit
        )
    second, third = worker.jobs[1:]
    assert np.array_equal(second.vector, third.vector)


def test_a_personal_adapter_is_trained_on_top_and_goes_on(tmp_path: Path, worker: Worker) -> None:
    kept = DiskPersonalStates(tmp_path)
    for number in (1, 2):
        round_jobs.train(train_work(number, personal="adapter"), SPLIT, kept, worker.submit)
    jobs = [job for job in worker.jobs if job.frozen is not None]
    assert len(jobs) == 2
    assert len(worker.jobs) == 4
    assert [job.frozen.digest for job in jobs] == [broadcast(n).digest for n in (1, 2)]
    assert np.array_equal(jobs[1].vector, jobs[0].vector + 1)
    assert jobs[0].seed != worker.jobs[1].seed
    job_before = len(worker.jobs)
    round_jobs.evaluate(evaluate_work(2, personal="adapter"), SPLIT, kept, worker.submit)
    community, own = worker.jobs[job_before:]
    assert isinstance(own, EvaluateJob)
    assert own.spec.rank == community.spec.rank + 4
    assert own.spec.scale == pytest.approx(community.spec.scale)


def test_who_has_not_trained_yet_has_no_personal_loss(tmp_path: Path, worker: Worker) -> None:
    for personal in ("adapter", "local-B"):
        asked = evaluate_work(3, personal=personal)
        assert (
            round_jobs.evaluate(asked, SPLIT, DiskPersonalStates(tmp_path), worker.submit)[2]
            is None
        )


def test_what_was_kept_of_another_model_is_not_used(tmp_path: Path, worker: Worker) -> None:
    kept = DiskPersonalStates(tmp_path)
    round_jobs.train(train_work(1, personal="adapter"), SPLIT, kept, worker.submit)
    other = replace(SPEC, target_modules=("k",))
    asked = replace(evaluate_work(2, personal="adapter"), adapter=Adapter(other, START.vector))
    assert round_jobs.evaluate(asked, SPLIT, kept, worker.submit)[2] is None
