"""A tiny model and adapters for it, as sources and behind a server."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.lora.inference.prompts import Prompts
from nomoat.serving.http.app import ApiService, make_app
from nomoat.serving.http.running import bound
from nomoat.serving.sources.source import BASE, COMMUNITY, NUMBERED, BaseRef, UnknownVoice
from nomoat.serving.voices import EngineVoices

KEY = "a key for tests"


@dataclass
class Versions:
    """A source whose newest version a test can change."""

    adapters: dict[str, Adapter]
    base: BaseRef
    newest: int = 2
    title: str = "readers"
    loaded: list[str] = field(default_factory=list)

    def voices(self) -> tuple[str, ...]:
        numbered = (f"{COMMUNITY}@{n}" for n in range(self.newest, 0, -1))
        return (BASE, COMMUNITY, *numbered, "personal")

    def exact(self, voice: str) -> str:
        if voice == COMMUNITY:
            return f"{COMMUNITY}@{self.newest}"
        if voice in (BASE, "personal"):
            return voice
        numbered = NUMBERED.fullmatch(voice)
        if numbered is None or not 1 <= int(numbered[1]) <= self.newest:
            raise UnknownVoice(voice, self.voices())
        return voice

    def load(self, voice: str) -> Adapter:
        self.loaded.append(voice)
        return self.adapters[voice]

    def card(self, voice: str) -> str:
        return "# a card\n"

    def losses(self, voice: str) -> Mapping[str, float]:
        return {}

    def by_volunteer(self, voice: str) -> Mapping[str, float]:
        return {}


def adapter_of(folder: Path, seed: int, rank: int = 4) -> Adapter:
    """An adapter that changes the answers of the model in `folder`."""
    from nomoat.lora.model.adapter_spec import new_spec

    spec = new_spec(str(folder), rank, 2.0 * rank)
    drawn = np.random.default_rng(seed).standard_normal(spec.size) * 0.3
    return Adapter(spec, drawn.astype(np.float32))


@pytest.fixture(scope="session")
def adapters(tiny_model: Path) -> dict[str, Adapter]:
    """Three versions and a personal one."""
    names = ("community@1", "community@2", "community@3", "personal")
    return {name: adapter_of(tiny_model, seed) for seed, name in enumerate(names)}


@pytest.fixture(scope="module")
def engine(tiny_model: Path) -> Iterator[Any]:
    """The engine that is always there."""
    import torch

    from nomoat.lora.inference.peft_engine import PeftEngine
    from nomoat.lora.model.base_model import load

    torch.set_num_threads(1)
    running = PeftEngine(load(str(tiny_model), "cpu"))
    yield running
    running.close()


@pytest.fixture(scope="module")
def source(adapters: dict[str, Adapter], tiny_model: Path) -> Versions:
    """Version 2 is the newest at first."""
    return Versions(adapters, BaseRef(str(tiny_model), "tiny"))


@pytest.fixture(scope="module")
def prompts(tiny_model: Path) -> Prompts:
    """Of the tiny model's tokenizer."""
    from nomoat.lora.model.base_model import load_tokenizer

    return Prompts.of(load_tokenizer(str(tiny_model)))


@contextmanager
def server(voices: EngineVoices, prompts: Prompts) -> Iterator[str]:
    """A server on loopback; its address."""
    import uvicorn

    origins = ("https://chat.example.org",)
    app = make_app(ApiService(voices, prompts, KEY, lambda: 1_700_000_000.0, origins))
    with bound("127.0.0.1", 0) as listening:
        config = uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1, ws="none")
        running = uvicorn.Server(config)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        running.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def url(engine: Any, source: Versions, prompts: Prompts) -> Iterator[str]:
    """A server of the tiny model."""
    with server(EngineVoices(engine, source), prompts) as address:
        yield address
