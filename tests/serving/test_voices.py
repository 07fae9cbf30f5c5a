"""The engine holds what is asked for, and not more than it should."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from nomoat.aggregation.errors import BadData
from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.lora.inference.requests import BASE
from nomoat.serving.sources.source import UnknownVoice
from nomoat.serving.voices import MOST_HELD, EngineVoices
from tests.serving.conftest import Versions


class Offers:
    """An engine that notes what it is offered."""

    def __init__(self) -> None:
        self.offers: list[tuple[str, ...]] = []

    def offer(self, voices: Mapping[str, Adapter]) -> None:
        self.offers.append(tuple(voices))


@pytest.fixture
def many(source: Versions) -> Versions:
    adapter = next(iter(source.adapters.values()))
    adapters = {f"community@{n}": adapter for n in range(1, 30)} | {"personal": adapter}
    return Versions(adapters, source.base, newest=29)


def test_a_voice_is_loaded_once(many: Versions) -> None:
    engine: Any = Offers()
    voices = EngineVoices(engine, many)
    assert [voices.key(name) for name in ("community", "community@29", "base")] == [
        "community@29",
        "community@29",
        BASE,
    ]
    assert many.loaded == ["community@29"]
    assert engine.offers == [("community@29",)]


def test_the_voice_not_asked_for_longest_goes_first(many: Versions) -> None:
    engine: Any = Offers()
    voices = EngineVoices(engine, many)
    for number in range(1, MOST_HELD + 1):
        voices.key(f"community@{number}")
    voices.key("community@1")  # asked for again: it stays
    voices.key("community@20")
    assert len(engine.offers[-1]) == MOST_HELD
    assert "community@1" in engine.offers[-1]
    assert "community@2" not in engine.offers[-1]


def test_an_unknown_voice_loads_nothing(many: Versions) -> None:
    engine: Any = Offers()
    with pytest.raises(UnknownVoice):
        EngineVoices(engine, many).key("community@99")
    assert not engine.offers


def test_an_adapter_that_the_engine_refuses_stands_in_no_other_ones_way(many: Versions) -> None:
    class Choosy(Offers):
        def offer(self, voices: Mapping[str, Adapter]) -> None:
            if "community@3" in voices:
                raise BadData("another base's")
            super().offer(voices)

    engine: Any = Choosy()
    voices = EngineVoices(engine, many)
    for _ in range(2):
        with pytest.raises(BadData):
            voices.key("community@3")
    assert voices.key("community@4") == "community@4"
    assert engine.offers == [("community@4",)]
