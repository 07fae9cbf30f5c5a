"""Recorded pieces give the same gradients; a model that cannot be recorded trains all the same."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nomoat.aggregation.protocol.messages import TrainSettings
from nomoat.lora.data.batches import Batch
from nomoat.lora.device import backends
from nomoat.lora.model.adapter_slot import attach, detach
from nomoat.lora.model.base_model import initial_adapter
from nomoat.lora.training.checkpoint import Paused
from nomoat.lora.training.pieces.recordings import LEAST_PIECES, Recordings
from nomoat.lora.training.pieces.sizes import UNLEARNT, filled_up, size_for
from nomoat.lora.training.progress import Breaks
from nomoat.lora.training.together import JoinedTraining, train_together
from nomoat.lora.training.train import Given, Trained, train

SETTINGS = TrainSettings(local_steps=12, batch_size=6, seq_len=64, learning_rate=1e-3)


class Repeater:
    """Records as a GPU would, computing nothing at first; a replay does the work anew."""

    def __init__(self) -> None:
        self.recordings = self.replays = 0
        self.inside = False

    @contextlib.contextmanager
    def in_order(self) -> Iterator[None]:
        self.inside = True
        yield
        self.inside = False

    def record(self, work: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        assert self.inside
        self.recordings += 1
        static: list[torch.Tensor] = []

        def replay() -> torch.Tensor:
            self.replays += 1
            found = work()
            if not static:
                static.append(found.clone())
            with torch.no_grad():
                return static[0].copy_(found)  # what was returned before is overwritten

        return replay

    def begin_anew(self) -> None:
        """Nothing was kept."""


class Unable(Repeater):
    """A device that cannot record this model."""

    def record(self, work: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        super().record(work)
        raise RuntimeError("operation not permitted when stream is capturing")


class Tight(Repeater):
    """A GPU with memory for rows up to `most`, of all recordings together, or of one pass."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most, self.held, self.given_back = most, 0, 0
        self.rows: list[int] = []

    def record(self, work: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        owner: Any = work  # a recorded piece's method
        rows = owner.__self__._batch.size.rows
        try:
            if self.held + rows > self.most:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        finally:
            if self.held + rows > self.most:  # what ends a recording complains of it, too
                raise RuntimeError("CUDA error: operation failed due to a previous error")
        self.held += rows
        self.rows.append(rows)
        return super().record(work)

    def begin_anew(self) -> None:
        self.given_back += 1
        self.held = 0


@pytest.fixture
def recording(monkeypatch: pytest.MonkeyPatch) -> Callable[[Repeater], None]:
    """Have the processor record with the recorder that is given."""

    def use(recorder: Repeater) -> None:
        class Recording(backends.Device):
            def recorder(self) -> Any:
                return recorder

        monkeypatch.setitem(backends.KINDS, "cpu", Recording)

    return use


def run(
    model: Any, spec: Any, examples: Any, settings: TrainSettings = SETTINGS, tokens: int = 120
) -> Trained:
    breaks = Given(None, Breaks(most_tokens=tokens))
    return train(model, initial_adapter(spec, b"i"), examples, settings, b"s", lambda: 0.0, breaks)


def test_recorded_training_is_the_eager_one_within_rounding(
    model: Any, spec: Any, examples: Any, recording: Any
) -> None:
    eager = run(model, spec, examples)
    recorder = Repeater()
    recording(recorder)
    found = run(model, spec, examples)
    assert 0 < recorder.recordings < recorder.replays / 2
    assert (found.steps, found.tokens) == (eager.steps, eager.tokens)
    assert found.first_loss == pytest.approx(eager.first_loss, rel=1e-5)
    assert found.last_loss == pytest.approx(eager.last_loss, rel=1e-5)
    moved = eager.vector - initial_adapter(spec, b"i").vector
    assert np.linalg.norm(found.vector - eager.vector) < 2e-3 * np.linalg.norm(moved)


def test_a_recorded_run_that_paused_anywhere_ends_with_the_same_bits(
    model: Any, spec: Any, examples: Any, recording: Any
) -> None:
    recording(Repeater())
    whole, start = run(model, spec, examples), initial_adapter(spec, b"i")
    taken: list[Any] = []

    def between(take: Any) -> None:
        taken.append(take())
        if len(taken) in (1, 4, 9):
            raise Paused

    found, resume = None, None
    while found is None:
        breaks = Breaks(resume=resume, between=between, most_tokens=120)
        given_ = Given(None, breaks)
        try:
            found = train(model, start, examples, SETTINGS, b"s", lambda: 0.0, given_)
        except Paused:
            resume = taken[-1]
    assert np.array_equal(found.vector, whole.vector)
    assert found.last_loss == whole.last_loss


def test_volunteers_trained_together_are_recorded_too(
    base: Any, spec: Any, examples: Any, recording: Any
) -> None:
    settings = (
        SETTINGS,
        replace(SETTINGS, local_steps=9, batch_size=4),
        replace(SETTINGS, prox=0.5),
    )
    some = [
        JoinedTraining(initial_adapter(spec, bytes([n])), examples[n:], each, bytes([n]))
        for n, each in enumerate(settings)
    ]
    model = attach(base, spec)
    try:
        eager = train_together(model, some, lambda: 0.0, 200)
        recorder = Repeater()
        recording(recorder)
        found = train_together(model, some, lambda: 0.0, 200)
    finally:
        detach(model)
    assert 0 < recorder.recordings < recorder.replays / 2
    for one, other, member in zip(found, eager, some, strict=True):
        assert (one.steps, one.tokens) == (other.steps, other.tokens)
        assert one.last_loss == pytest.approx(other.last_loss, rel=1e-5)
        moved = other.vector - member.adapter.vector
        assert np.linalg.norm(one.vector - other.vector) < 2e-3 * np.linalg.norm(moved)


def test_a_short_run_is_not_worth_a_recording(
    model: Any, spec: Any, examples: Any, recording: Any
) -> None:
    recorder = Repeater()
    recording(recorder)
    run(model, spec, examples, TrainSettings(LEAST_PIECES - 1, 0, 2, 64, 1e-3))
    assert recorder.recordings == 0


def test_what_cannot_be_recorded_trains_as_if_nobody_had_tried(
    model: Any, spec: Any, examples: Any, recording: Any
) -> None:
    eager = run(model, spec, examples)
    recorder = Unable()
    recording(recorder)
    assert np.array_equal(run(model, spec, examples).vector, eager.vector)
    assert recorder.recordings == 1  # and it is not tried at every piece


def test_memory_that_is_short_for_a_recording_costs_smaller_pieces_that_are_recorded_too(
    model: Any, spec: Any, examples: Any, recording: Any
) -> None:
    small = Repeater()
    recording(small)
    began_small = run(model, spec, examples, tokens=60)
    tight = Tight(3)
    recording(tight)
    found = run(model, spec, examples, tokens=400)
    assert tight.given_back > 0
    assert max(tight.rows) <= 3 < SETTINGS.batch_size
    assert tight.recordings > 1
    assert tight.replays > SETTINGS.local_steps  # kernel by kernel was no step
    assert (found.steps, found.tokens) == (began_small.steps, began_small.tokens)
    assert found.first_loss == pytest.approx(began_small.first_loss, rel=1e-5)
    assert found.last_loss == pytest.approx(began_small.last_loss, rel=1e-5)
    moved = began_small.vector - initial_adapter(spec, b"i").vector
    assert np.linalg.norm(found.vector - began_small.vector) < 2e-3 * np.linalg.norm(moved)


def test_earlier_recordings_make_room_for_one_of_another_size(recording: Any) -> None:
    tight = Tight(6)
    made: Recordings[int, str] = Recordings(tight)

    def sized(rows: int) -> str:
        if tight.held + rows > tight.most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        tight.held += rows
        return f"{rows} rows"

    assert [made.get(n, lambda n=n: sized(n)) for n in (4, 2, 5)] == ["4 rows", "2 rows", "5 rows"]
    assert tight.given_back == 1
    assert made.get(4, lambda: sized(4)) == "4 rows"  # recorded again
    assert made.get(7, lambda: sized(7)) is None  # kernel by kernel, and the others go on
    assert made.get(6, lambda: sized(6)) == "6 rows"
    with pytest.raises(torch.OutOfMemoryError):
        made.get(8, lambda: sized(8), splits=True)


@given(
    rows=st.integers(1, 5),
    width=st.integers(2, 700),
    longest=st.integers(2, 700),
    data=st.data(),
)
def test_filling_up_keeps_every_learnt_token_and_adds_little(
    rows: int, width: int, longest: int, data: Any
) -> None:
    longest = max(longest, width)
    learnt = data.draw(st.sets(st.integers(0, rows * width - 1), min_size=1, max_size=50))
    ids = np.arange(rows * width, dtype=np.int64).reshape(rows, width) + 5
    places = np.array(sorted(learnt), np.int64)
    piece = Batch(ids, places, ids.ravel()[places] + 1)
    size = size_for(piece, longest)
    assert width <= size.width <= min(longest, max(width + 16, width * 5 // 4 + 1))
    assert len(places) <= size.places <= max(rows * size.width, 2 * len(places))
    filled, at, targets = filled_up(piece, size)
    real = targets != UNLEARNT
    assert np.array_equal(filled.ravel()[at[real]] + 1, targets[real])
    assert np.array_equal(filled.ravel()[at[real]], ids.ravel()[places])
