"""What leaves a volunteer's machine is a protocol message or a fixed word, whatever goes wrong."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict

import builders
from nomoat.aggregation.errors import NomoatError
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.adapter import Adapter, AdapterSpec, LayerSpec
from nomoat.aggregation.protocol.messages import (
    Decline,
    Evaluation,
    Ready,
    Report,
    ReportRequest,
    TrainSettings,
)
from nomoat.aggregation.secagg.diary import Mark
from nomoat.client.round.app import ACTIONS, RequestHandler, volunteer_app
from nomoat.client.round.session import RoundSession
from nomoat.client.round.task_limits import TaskLimits
from nomoat.client.round.work import EvaluateWork, HeldUpdate, Reason, TrainWork
from nomoat.lora.training.train import Trained
from nomoat.simulations.network.in_process_grid import InProcessGrid

SPEC = AdapterSpec((LayerSpec("model.a", 4, 3, 2),), 2, 4.0, target_modules=("a",))
BASE = b"b" * 32
START = Adapter(SPEC, np.linspace(-1, 1, SPEC.size, dtype=np.float32))
SECRET = "/home/ada/diary.jsonl:17: dear diary"


@dataclass
class FakeTrainer:
    """Training and evaluation that do what a test says, and a store that notes what it got."""

    failure: Exception | None = None
    full: Exception | None = None
    saved: list[HeldUpdate] = field(default_factory=list)
    session: RoundSession | None = None

    def train(self, work: TrainWork) -> Trained:
        if self.failure is not None:
            raise self.failure
        return Trained(work.local.adapter.vector + np.float32(0.5), 2, 500, 4.0, 3.0, 0.5)

    def evaluate(self, work: EvaluateWork) -> tuple[float, int, float | None]:
        if self.failure is not None:
            raise self.failure
        return 2.5, 40, None

    def save(self, held: HeldUpdate) -> None:
        if self.full is not None:
            raise self.full
        self.saved.append(held)

    def mark(self, marks: tuple[Mark, ...]) -> None:
        """Nothing to keep."""

    def drop(self) -> None:
        """Nothing to forget."""


@dataclass
class Town:
    """One volunteer behind a grid, asked through Flower's messages."""

    grid: InProcessGrid
    volunteer: RequestHandler

    def ask(self, request: object) -> wire.Packet:
        packet = wire.encode(request)
        action = wire.action_of(wire.kind_of(type(request)))
        records = {n: ConfigRecord({"bytes": part}) for n, part in packet.parts().items()}
        return self.send(RecordDict({**records}), action)

    def send(self, content: RecordDict, action: str) -> wire.Packet:
        (back,) = self.grid.send_and_receive([Message(content, 1, action, group_id="5")])
        assert not back.has_error(), back.error
        parts = {n: bytes(r["bytes"]) for n, r in back.content.config_records.items()}  # type: ignore[arg-type]
        return wire.Packet.from_parts(parts, "ada")


@pytest.fixture
def town() -> Iterator[Callable[[FakeTrainer], Town]]:
    with contextlib.ExitStack() as stack:

        def make(trainer: FakeTrainer) -> Town:
            volunteer = RequestHandler(RoundSession("ada", BASE, TaskLimits()), trainer, trainer)
            grid = InProcessGrid(volunteer_app(lambda _: volunteer), ["ada"], 1)
            stack.callback(grid.close)
            return Town(grid, volunteer)

        yield make


SETTINGS = TrainSettings(local_steps=2)
train_task = partial(builders.train_task, START, 5, settings=SETTINGS)
evaluate_task = partial(builders.evaluate_task, START, 5)


def declined(packet: wire.Packet) -> Decline:
    return wire.decode(packet, Decline, "ada")


def test_a_round_over_flower_trains_keeps_reports_and_evaluates(
    town: Callable[[FakeTrainer], Town],
) -> None:
    trainer = FakeTrainer()
    place = town(trainer)
    ready = wire.decode(place.ask(train_task()), Ready, "ada")
    assert ready == Ready(5, 2, 500, 4.0, 3.0, 0.5, 2)
    assert [held.round for held in trainer.saved] == [5]
    report = wire.decode(place.ask(ReportRequest(5, 1, START.digest)), Report, "ada")
    assert report.weight == 1.0
    evaluation = wire.decode(place.ask(evaluate_task()), Evaluation, "ada")
    assert evaluation == Evaluation(5, 2.5, 40)


def test_an_update_is_saved_before_ready_is_said(town: Callable[[FakeTrainer], Town]) -> None:
    """Who says "ready" must still have the update after a crash."""
    trainer = FakeTrainer(
        full=NomoatError("cannot write held.safetensors: No space left on device")
    )
    place = town(trainer)
    answer = declined(place.ask(train_task()))
    assert answer == Decline(5, Reason.FAILED)
    assert trainer.saved == []


@pytest.mark.parametrize("request_kind", ["train", "evaluate"])
@pytest.mark.parametrize(
    "failure", [NomoatError(SECRET), RuntimeError(SECRET), OSError(28, SECRET), KeyError(SECRET)]
)
def test_what_failed_here_stays_here(
    town: Callable[[FakeTrainer], Town],
    caplog: pytest.LogCaptureFixture,
    failure: Exception,
    request_kind: str,
) -> None:
    place = town(FakeTrainer(failure=failure))
    request = train_task() if request_kind == "train" else evaluate_task()
    with caplog.at_level(logging.WARNING, "nomoat.client.round.app"):
        packet = place.ask(request)
    assert declined(packet).reason == Reason.FAILED
    assert b"diary" not in packet.head + packet.body
    assert "diary" in caplog.text  # its owner can read what happened


def test_a_failed_training_can_be_tried_again(town: Callable[[FakeTrainer], Town]) -> None:
    trainer = FakeTrainer(failure=RuntimeError(SECRET))
    place = town(trainer)
    declined(place.ask(train_task()))
    trainer.failure = None
    wire.decode(place.ask(train_task()), Ready, "ada")


@pytest.mark.parametrize("action", sorted(ACTIONS))
@pytest.mark.parametrize(
    "content",
    [
        {},
        {"head": {"bytes": b""}},
        {"head": {"bytes": b"\xc1"}},
        {"head": {"bytes": "text"}},
        {"head": {"other": b"x"}},
        {"head": {"bytes": b"\x93\x01\xa1x\x90"}, "body00001": {"bytes": b""}},
        {"parameters": {"bytes": b"x"}},
    ],
)
def test_garbage_is_answered_with_a_fixed_word_and_starts_no_work(
    town: Callable[[FakeTrainer], Town], action: str, content: dict[str, dict[str, Any]]
) -> None:
    trainer = FakeTrainer()
    place = town(trainer)
    records = {name: ConfigRecord(values) for name, values in content.items()}
    packet = place.send(RecordDict({**records}), action)
    assert declined(packet) == Decline(0, Reason.MALFORMED)
    assert trainer.saved == []


def test_a_message_of_one_action_sent_as_another_is_refused(
    town: Callable[[FakeTrainer], Town],
) -> None:
    place = town(FakeTrainer())
    packet = wire.encode(train_task())
    records = {n: ConfigRecord({"bytes": part}) for n, part in packet.parts().items()}
    answer = declined(place.send(RecordDict({**records}), "evaluate.heldout"))
    assert answer.reason == Reason.MALFORMED


def test_an_action_that_does_not_exist_runs_nothing(town: Callable[[FakeTrainer], Town]) -> None:
    place = town(FakeTrainer())
    message = Message(RecordDict({}), 1, "query.files", group_id="5")
    (back,) = place.grid.send_and_receive([message])
    assert back.has_error()


def test_a_lying_coordinator_is_refused_in_a_fixed_word(
    town: Callable[[FakeTrainer], Town], caplog: pytest.LogCaptureFixture
) -> None:
    place = town(FakeTrainer())
    place.ask(train_task())
    answer = declined(place.ask(ReportRequest(5, 2, START.digest)))
    assert answer.reason == Reason.UNSAFE
    assert "fedavg has no such exchange" in caplog.text
