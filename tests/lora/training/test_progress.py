"""A run interrupted between any two pieces ends with the bits of one that was not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nomoat.aggregation.protocol.messages import TrainSettings
from nomoat.lora.model.base_model import initial_adapter
from nomoat.lora.training.checkpoint import Paused, TrainingCheckpoint, read, write
from nomoat.lora.training.loss import Losses
from nomoat.lora.training.progress import NO_BREAKS, Breaks
from nomoat.lora.training.train import Given, Trained, train
from nomoat.lora.workers.jobs import TrainJob, digest

SETTINGS = TrainSettings(local_steps=4, batch_size=6, seq_len=64, learning_rate=1e-2)
JOB = b"j" * 32
PIECE = 60  # padded tokens: two rows or three, so that a step has several pieces


def _train(model: Any, spec: Any, examples: Any, breaks: Breaks = NO_BREAKS) -> Trained:
    return train(
        model, initial_adapter(spec, b"i"), examples, SETTINGS, b"s", _clock, Given(None, breaks)
    )


def _clock() -> float:
    return 0.0


def _stop_at(call: int, path: Path) -> Callable[[Callable[[], TrainingCheckpoint]], None]:
    calls = 0

    def between(taken: Callable[[], TrainingCheckpoint]) -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            write(path, taken())
            raise Paused

    return between


def test_a_run_paused_between_any_two_pieces_ends_with_the_same_bits(
    model: Any, spec: Any, examples: Any, tmp_path: Path
) -> None:
    import torch

    counted = 0

    def count(_: object) -> None:
        nonlocal counted
        counted += 1

    whole = _train(model, spec, examples, Breaks(between=count, most_tokens=PIECE))
    assert counted > 2 * SETTINGS.local_steps  # pauses inside steps, too
    path = tmp_path / "checkpoint"
    for call in range(1, counted + 1):
        stop = Breaks(JOB, None, _stop_at(call, path), PIECE)
        with pytest.raises(Paused):
            _train(model, spec, examples, stop)
        torch.manual_seed(999)
        saved = read(path, JOB)
        assert saved is not None
        again = _train(model, spec, examples, Breaks(JOB, saved, None, PIECE))
        assert np.array_equal(again.vector, whole.vector)
        assert (again.first_loss, again.last_loss) == (whole.first_loss, whole.last_loss)
        assert (again.tokens, again.steps) == (whole.tokens, whole.steps)


def test_a_run_goes_on_in_the_pieces_it_began_with(
    model: Any, spec: Any, examples: Any, tmp_path: Path
) -> None:
    whole = _train(model, spec, examples, Breaks(most_tokens=PIECE))
    path = tmp_path / "checkpoint"
    with pytest.raises(Paused):
        _train(model, spec, examples, Breaks(JOB, None, _stop_at(2, path), PIECE))
    more = _train(model, spec, examples, Breaks(JOB, read(path, JOB), None, 10 * PIECE))
    assert np.array_equal(more.vector, whole.vector)


@pytest.mark.parametrize("call", range(1, 7))
def test_where_memory_is_less_a_step_half_done_is_begun_anew_in_smaller_pieces(
    model: Any,
    spec: Any,
    examples: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: int,
) -> None:
    whole = _train(model, spec, examples, Breaks(most_tokens=PIECE))
    path = tmp_path / "checkpoint"
    with pytest.raises(Paused):
        _train(model, spec, examples, Breaks(JOB, None, _stop_at(call, path), PIECE))
    saved, real, rows = read(path, JOB), Losses.__call__, []
    assert saved is not None

    def noted(self: Losses, batch: Any, reduction: str) -> Any:
        rows.append(len(batch.input_ids))
        return real(self, batch, reduction)

    monkeypatch.setattr(Losses, "__call__", noted)
    less = _train(model, spec, examples, Breaks(JOB, saved, None, 10))
    left = SETTINGS.local_steps - saved.place.step
    assert rows == [1] * SETTINGS.batch_size * left
    assert (less.tokens, less.steps) == (whole.tokens, whole.steps)
    assert less.last_loss == pytest.approx(whole.last_loss, abs=1e-4)
    assert np.abs(less.vector - whole.vector).max() < 1e-4


def test_seconds_of_before_the_pause_count(
    model: Any, spec: Any, examples: Any, tmp_path: Path
) -> None:
    path = tmp_path / "checkpoint"
    with pytest.raises(Paused):
        _train(model, spec, examples, Breaks(JOB, None, _stop_at(3, path), PIECE))
    saved = read(path, JOB)
    assert saved is not None
    later = dataclasses.replace(saved, place=dataclasses.replace(saved.place, seconds=40.0))
    assert _train(model, spec, examples, Breaks(JOB, later)).seconds == 40.0


def test_memory_that_runs_out_halves_the_pieces_and_the_batch_stays(
    model: Any, spec: Any, examples: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    whole = _train(model, spec, examples)
    real, rows = Losses.__call__, []

    def small(self: Losses, batch: Any, reduction: str) -> Any:
        if len(batch.input_ids) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        rows.append(len(batch.input_ids))
        return real(self, batch, reduction)

    monkeypatch.setattr(Losses, "__call__", small)
    halved = _train(model, spec, examples)
    assert set(rows) <= {1, 2}
    assert sum(rows) == SETTINGS.local_steps * SETTINGS.batch_size
    assert halved.tokens == whole.tokens
    assert np.abs(halved.vector - whole.vector).max() < 1e-4

    def none(self: Losses, batch: Any, reduction: str) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Losses, "__call__", none)
    with pytest.raises(torch.OutOfMemoryError):
        _train(model, spec, examples)


def test_a_job_is_named_by_what_is_trained_and_not_by_how(tmp_path: Path, spec: Any) -> None:
    shard = tmp_path / "s.jsonl"
    shard.write_text("a")
    job = TrainJob(shard, spec, np.zeros(spec.size, np.float32), SETTINGS, b"s")
    name = digest(job)
    local = dataclasses.replace(job, checkpoint=tmp_path, most_tokens=9, checkpointing=True)
    assert digest(local) == name
    others = [
        dataclasses.replace(job, seed=b"t"),
        dataclasses.replace(job, vector=np.ones(spec.size, np.float32)),
        dataclasses.replace(job, settings=dataclasses.replace(SETTINGS, local_steps=5)),
    ]
    assert all(digest(other) != name for other in others)
    shard.write_text("b")
    assert digest(job) != name
