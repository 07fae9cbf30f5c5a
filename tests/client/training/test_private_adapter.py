"""A private adapter is carried from version to version, its gain measured on each."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nomoat.aggregation.protocol.adapter import Adapter, AdapterSpec, LayerSpec
from nomoat.aggregation.protocol.messages import TrainSettings
from nomoat.client.training.private_adapter import (
    Gain,
    PrivateAdapter,
    PrivateAdapterFile,
    PrivateTraining,
    better,
)
from nomoat.lora.training.evaluate import MeasuredLoss
from nomoat.lora.training.train import Trained
from nomoat.lora.workers.jobs import EvaluateJob, TrainJob

SPEC = AdapterSpec((LayerSpec("model.q", 6, 5, 4),), 4, 8.0, target_modules=("q",))
START = Adapter(SPEC, np.linspace(-0.5, 0.5, SPEC.size, dtype=np.float32))
JOB = TrainJob(Path("train"), SPEC, START.vector, TrainSettings(local_steps=7), b"s" * 32)


@dataclass
class Worker:
    """Training adds 1 to every value; a loss falls with the sum of all values."""

    jobs: list[Any] = field(default_factory=list)

    def submit(self, job: Any) -> Future[Any]:
        self.jobs.append(job)
        future: Future[Any] = Future()
        if isinstance(job, TrainJob):
            future.set_result(Trained(job.vector + 1, 7, 30, 4.0, 3.0, 0.1))
        else:
            future.set_result(MeasuredLoss(100 - float(job.vector.sum()), 10))
        return future


def on(version: int, worker: Worker) -> PrivateTraining:
    community = Adapter(SPEC, START.vector + np.float32(version))
    heldout = Path("heldout")
    return PrivateTraining(community, version, heldout, 2, JOB, worker.submit, worker.submit)


def test_it_is_trained_on_top_of_the_version_and_that_stays_as_it_is() -> None:
    worker = Worker()
    kept = on(1, worker).trained(None)
    (job,) = [job for job in worker.jobs if isinstance(job, TrainJob)]
    assert job.frozen is not None
    assert np.array_equal(job.frozen.vector, START.vector + 1)
    assert (kept.adapter.spec.rank, kept.adapter.spec.scale) == (2, SPEC.scale)
    assert kept.gains[-1].gain > 0
    assert better(None, kept)


def test_it_is_carried_on_and_its_gain_on_every_version_is_kept() -> None:
    worker = Worker()
    kept = on(1, worker).trained(None)
    carried = on(2, worker).carried(kept)
    assert [gain.version for gain in carried.gains] == [1, 2]
    assert np.array_equal(carried.adapter.vector, kept.adapter.vector)
    assert carried.gains[0] == kept.gains[0]
    first, second = carried.gains
    assert second.community != first.community  # measured anew, on the new version alone, too
    trained = on(2, worker).trained(carried)
    assert [gain.version for gain in trained.gains] == [1, 2]  # the newest measurement of each
    assert [gain.steps for gain in trained.gains] == [7, 14]
    assert trained.gains[-1].community == second.community
    assert better(carried, trained)


def test_measuring_costs_two_evaluations_and_training_on_the_same_version_one_more() -> None:
    worker = Worker()
    kept = on(2, worker).trained(None)
    worker.jobs.clear()
    carried = on(3, worker).carried(kept)
    assert len(worker.jobs) == 2
    on(3, worker).trained(carried)
    assert [type(job) for job in worker.jobs[2:]] == [TrainJob, EvaluateJob]


def test_a_training_that_made_it_worse_is_not_better() -> None:
    before = PrivateAdapter(START, (Gain(1, 3.0, 2.5, 7),))
    assert not better(before, PrivateAdapter(START, (Gain(1, 3.0, 2.6, 14),)))
    assert not better(None, PrivateAdapter(START, (Gain(1, 3.0, 3.1, 7),)))
    worse_than_nothing = PrivateAdapter(START, (Gain(2, 2.0, 2.2, 7),))
    assert not better(worse_than_nothing, PrivateAdapter(START, (Gain(2, 2.0, 2.1, 7),)))


def test_it_is_read_as_it_was_kept_by_its_owner_alone_and_a_damaged_one_is_left_out(
    tmp_path: Path,
) -> None:
    file = PrivateAdapterFile(tmp_path / "kept")
    assert file.load() is None
    gains = (Gain(1, 3.0, 2.5, 7), Gain(2, 2.9, 2.45, 14))
    file.save(PrivateAdapter(START, gains))
    assert file.path.stat().st_mode & 0o077 == 0
    read = file.load()
    assert read is not None
    assert (read.adapter.digest, read.gains) == (START.digest, gains)
    data = bytearray(file.path.read_bytes())
    data[-1] ^= 1
    file.path.write_bytes(bytes(data))
    assert file.load() is None


@pytest.mark.parametrize("name", ["model.k", "model.q"])
def test_it_belongs_on_the_same_layers_whatever_their_rank(name: str) -> None:
    other = AdapterSpec((LayerSpec(name, 6, 5, 9),), 9, 3.0, target_modules=("q",))
    assert PrivateAdapter(START, ()).fits(other) == (name == "model.q")
    wider = replace(other, layers=(LayerSpec(name, 7, 5, 9),))
    assert not PrivateAdapter(START, ()).fits(wider)
