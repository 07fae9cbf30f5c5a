"""Rows shared out among devices give the sum that one device gives, whatever comes between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from nomoat.aggregation.protocol.messages import TrainSettings
from nomoat.lora.model.base_model import initial_adapter
from nomoat.lora.training.checkpoint import Paused, TrainingCheckpoint
from nomoat.lora.training.pieces.eager import EagerGradients
from nomoat.lora.training.progress import Breaks
from nomoat.lora.training.train import Given, Trained, train

SETTINGS = TrainSettings(local_steps=6, batch_size=7, seq_len=64, learning_rate=1e-2)


@pytest.fixture(scope="module")
def replicas(model_folder: Any, spec: Any) -> tuple[Any, ...]:
    """Two more of the same base, each with a slot."""
    from nomoat.lora.model.adapter_slot import attach
    from nomoat.lora.model.base_model import load

    return tuple(attach(load(str(model_folder), "cpu"), spec) for _ in range(2))


@pytest.fixture
def trained(model: Any, spec: Any, examples: Any) -> Callable[..., Trained]:
    def run(settings: TrainSettings = SETTINGS, **given: Any) -> Trained:
        start = initial_adapter(spec, b"i")
        return train(model, start, examples, settings, b"s", lambda: 0.0, Given(**given))

    return run


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("settings", [
    SETTINGS,
    replace(SETTINGS, batch_size=1),
    replace(SETTINGS, prox=0.5, train_a=False),
], ids=["uneven", "fewer rows than devices", "prox, one factor"])  # fmt: skip
def test_devices_together_end_where_one_does(
    trained: Any, replicas: Any, count: int, settings: TrainSettings
) -> None:
    alone = trained(settings)
    together = trained(settings, replicas=replicas[:count])
    assert together.tokens == alone.tokens
    assert together.first_loss == pytest.approx(alone.first_loss, rel=1e-5)
    assert together.last_loss == pytest.approx(alone.last_loss, rel=1e-5)
    assert np.abs(together.vector - alone.vector).max() < 1e-4


def test_each_device_computes_a_part_of_every_piece(
    trained: Any, replicas: Any, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[tuple[int, int]] = []
    add = EagerGradients.add

    def counted(self: Any, piece: Any, learnt: int, factor: float) -> Any:
        if type(self) is EagerGradients:  # a replica's
            rows.append(piece.input_ids.shape)
        return add(self, piece, learnt, factor)

    monkeypatch.setattr(EagerGradients, "add", counted)
    trained(replicas=replicas)
    assert [len(shape) for shape in rows] == [2] * (2 * SETTINGS.local_steps)
    assert {shape[0] for shape in rows} == {3, 1}  # of seven: three, three and one


def test_a_run_over_devices_resumes_with_the_same_bits(trained: Any, replicas: Any) -> None:
    kept: list[TrainingCheckpoint] = []

    def pause(taken: Callable[[], TrainingCheckpoint]) -> None:
        if not kept and (now := taken()).place.micro:
            kept.append(now)
            raise Paused

    small = {"most_tokens": 60, "job": b"j"}
    whole = trained(replicas=replicas, breaks=Breaks(**small))
    with pytest.raises(Paused):
        trained(replicas=replicas, breaks=Breaks(between=pause, **small))
    resumed = trained(replicas=replicas, breaks=Breaks(resume=kept[0], **small))
    assert kept[0].place.micro > 0
    assert np.array_equal(resumed.vector, whole.vector)


def test_memory_that_runs_out_on_another_device_costs_smaller_pieces_and_nothing_else(
    trained: Any, replicas: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    alone = trained()
    failures = [False, True, False, False]
    add = EagerGradients.add

    def failing(self: Any, piece: Any, learnt: int, factor: float) -> Any:
        found = add(self, piece, learnt, factor)
        if type(self) is EagerGradients and failures and failures.pop(0):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return found

    monkeypatch.setattr(EagerGradients, "add", failing)
    together = trained(replicas=replicas)
    assert not failures
    assert together.last_loss == pytest.approx(alone.last_loss, rel=1e-5)
    assert np.abs(together.vector - alone.vector).max() < 1e-4


def test_a_worker_that_holds_two_bases_trains_as_one_that_holds_one(
    model_folder: Any, spec: Any, conversations: Any, tmp_path: Any
) -> None:
    from nomoat.lora.data.normal_form import write_jsonl
    from nomoat.lora.model.base_model import load
    from nomoat.lora.workers.jobs import TrainJob
    from nomoat.lora.workers.worker import Worker

    shard = tmp_path / "rows.jsonl"
    write_jsonl(list(conversations[:12]), shard)
    start = initial_adapter(spec, b"i")
    job = TrainJob(shard, spec, start.vector, SETTINGS, b"s", frozen=start, checkpointing=True)
    bases = [load(str(model_folder), "cpu") for _ in range(3)]
    alone = Worker(bases[0]).run(job)
    together = Worker(bases[1], others=bases[2:]).run(job)
    assert np.abs(together.vector - alone.vector).max() < 1e-4
    assert together.rows == alone.rows
