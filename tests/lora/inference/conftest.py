"""A tiny model under three adapters, and a way to wait for answers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from builders import at_rank
from nomoat.aggregation.protocol.adapter import Adapter, AdapterSpec
from nomoat.lora.inference.peft_engine import PeftEngine
from nomoat.lora.inference.requests import AnswerEvent, Ended, Engine, Failed, Piece, Question

PATIENCE_S = 120.0  # no test waits for it: a test that needs it has failed


@dataclass
class Heard:
    """One answer as it was delivered."""

    events: list[AnswerEvent] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def __call__(self, event: AnswerEvent) -> None:
        self.events.append(event)
        if not isinstance(event, Piece):
            self.over.set()

    @property
    def text(self) -> str:
        """All pieces together, once the answer is over."""
        assert self.over.wait(PATIENCE_S)
        return "".join(event.text for event in self.events if isinstance(event, Piece))

    @property
    def words(self) -> str:
        """The text without what was no character: programs write that differently."""
        return self.text.replace("\N{REPLACEMENT CHARACTER}", "")

    @property
    def end(self) -> Ended | Failed:
        """The last event."""
        assert self.over.wait(PATIENCE_S)
        last = self.events[-1]
        assert isinstance(last, Ended | Failed)
        return last


@pytest.fixture
def ask() -> Callable[..., list[Heard]]:
    """Put several questions at once."""

    def put(engine: Engine, questions: Sequence[Question]) -> list[Heard]:
        heard = [Heard() for _ in questions]
        for question, one in zip(questions, heard, strict=True):
            engine.submit(question, one)
        return heard

    return put


@pytest.fixture(scope="session")
def voices(spec: AdapterSpec) -> dict[str, Adapter]:
    """Three adapters that change answers, of different ranks."""
    found = {}
    for number, rank in enumerate((4, 2, 6)):
        shape = at_rank(spec, rank)
        drawn = np.random.default_rng(number).standard_normal(shape.size) * 0.3
        found[f"v{number}"] = Adapter(shape, drawn.astype(np.float32))
    return found


@pytest.fixture(scope="module")
def own_base(model_folder: Any) -> Any:
    """The model of `model_folder`, loaded for this module alone: an engine leaves hooks in it."""
    from nomoat.lora.model.base_model import load

    return load(str(model_folder), "cpu")


@pytest.fixture(scope="module")
def engine(own_base: Any, voices: dict[str, Adapter]) -> Iterator[PeftEngine]:
    """An engine that offers `voices`."""
    running = PeftEngine(own_base)
    running.offer(voices)
    yield running
    running.close()
