"""Voices that an engine has been given, so that whoever asks by name gets the newest one."""

from __future__ import annotations

import threading
from typing import Final

from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.lora.inference import requests
from nomoat.lora.inference.requests import Engine
from nomoat.serving.sources.source import BASE, COMMUNITY, PERSONAL, Source

MOST_HELD: Final = 8  # adapters in the engine's memory; the one not asked for longest goes first


class EngineVoices:
    """The adapters of a source, in an engine. Every method may be called by any thread."""

    def __init__(self, engine: Engine, source: Source) -> None:
        self.engine, self.source = engine, source
        self._held: dict[str, Adapter] = {}
        self._lock = threading.Lock()

    def prepare(self) -> None:
        """Load the voices that people ask for first."""
        names = self.source.voices()
        for name in (COMMUNITY, PERSONAL):
            if name in names:
                self.key(name)

    def exact(self, name: str) -> str:
        """The name that always means the same; UnknownVoice if there is no such voice.

        Looked up anew each time, so that a version is answered under as soon as it is there.
        """
        return self.source.exact(name)

    def key(self, name: str) -> str:
        """The engine's key of a voice, which is loaded if it has to be."""
        exact = self.exact(name)
        if exact == BASE:
            return requests.BASE
        with self._lock:
            known = self._held.pop(exact, None)
            adapter = self.source.load(exact) if known is None else known
            while len(self._held) >= MOST_HELD:
                del self._held[next(iter(self._held))]
            if known is None:
                self.engine.offer({**self._held, exact: adapter})
            self._held[exact] = adapter
        return exact
