"""A job of several trainings gives each what it would have got alone, also where it goes wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nomoat.aggregation.errors import NomoatError
from nomoat.aggregation.protocol.adapter import AdapterSpec
from nomoat.aggregation.protocol.messages import TrainSettings
from nomoat.lora.data.encoding import Encoded
from nomoat.lora.data.row_counts import RowUse
from nomoat.lora.model.adapter_slot import attach, detach
from nomoat.lora.model.base_model import initial_adapter
from nomoat.lora.training.train import Given, Trained, train
from nomoat.lora.workers import joint_training
from nomoat.lora.workers.jobs import JointJob, TrainJob

SETTINGS = TrainSettings(local_steps=2, batch_size=2, seq_len=64, learning_rate=1e-2)


@pytest.fixture
def parts(spec: AdapterSpec) -> tuple[TrainJob, ...]:
    def part(place: int) -> TrainJob:
        start = initial_adapter(spec, bytes([place])).vector
        return TrainJob(Path(str(place)), spec, start, SETTINGS, bytes([place]), share=0.5)

    return tuple(part(place) for place in range(4))


@pytest.fixture
def worker(base: Any, examples: Any, spec: AdapterSpec) -> Any:
    """(does a job, the parts that it trained alone)."""
    model: Any = attach(base, spec)
    alone: list[str] = []

    def rows(part: TrainJob) -> Any:
        return Encoded(examples[int(part.shard.name) :], 0, ()), RowUse(9, 64, 0, ())

    def one(part: TrainJob) -> Trained:
        alone.append(part.shard.name)
        adapter = replace(initial_adapter(spec, b""), vector=part.vector)
        given = Given(share=part.share)
        mine = rows(part)[0].examples
        return train(model, adapter, mine, part.settings, part.seed, lambda: 0.0, given)

    def do(*some: TrainJob) -> Any:
        return joint_training.train_jointly(JointJob(some), lambda _: model, rows, one)

    yield do, alone
    detach(model)


def same(found: Any, oracle: Any) -> None:
    assert np.abs(found.vector - oracle.vector).max() < 1e-4
    assert found.tokens == oracle.tokens


def test_parts_of_one_kind_are_trained_at_once(worker: Any, parts: Any) -> None:
    do, alone = worker
    found = do(*parts)
    assert alone == []
    assert [one.rows.rows for one in found] == [9] * 4
    for part, one in zip(parts, found, strict=True):
        same(one, do(part)[0])


def test_whose_training_fails_fails_alone(worker: Any, parts: Any) -> None:
    do, _ = worker
    mad = replace(parts[1], settings=replace(SETTINGS, learning_rate=1e30))
    good, bad, fine = do(parts[0], mad, parts[2])
    assert isinstance(bad, NomoatError)
    assert "diverged" in str(bad)
    same(good, do(parts[0])[0])
    same(fine, do(parts[2])[0])


def test_a_group_too_large_for_the_memory_is_halved(
    worker: Any, parts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    do, alone = worker
    sizes: list[int] = []
    real = joint_training.train_together

    def small(model: Any, members: Any, *rest: Any) -> Any:
        sizes.append(len(members))
        if len(members) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(model, members, *rest)

    monkeypatch.setattr(joint_training, "train_together", small)
    found = do(*parts)
    assert (sizes, alone) == ([4, 2, 2], [])
    monkeypatch.undo()
    for one, other in zip(found, do(*parts), strict=True):
        same(one, other)


def test_parts_of_unlike_kinds_are_trained_in_turn(worker: Any, parts: Any) -> None:
    do, alone = worker
    other = replace(parts[1], settings=replace(SETTINGS, train_a=False))
    assert [one.steps for one in do(parts[0], other)] == [2, 2]
    assert alone == ["0", "1"]
