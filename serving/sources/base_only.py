"""A base model without any adapter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.serving.sources.source import BASE, BaseRef, UnknownVoice, check_known


@dataclass(frozen=True)
class BaseOnly:
    """The one voice is `base`."""

    title: str
    base: BaseRef

    def voices(self) -> tuple[str, ...]:
        """The base."""
        return (BASE,)

    def exact(self, voice: str) -> str:
        """The base."""
        return check_known(voice, self.voices())

    def load(self, voice: str) -> Adapter:
        """There is none."""
        raise UnknownVoice(voice, self.voices())

    def card(self, voice: str) -> str:
        """Its name."""
        return f"# {self.title}\n"

    def losses(self, voice: str) -> Mapping[str, float]:
        """Nothing was measured."""
        return {}

    def by_volunteer(self, voice: str) -> Mapping[str, float]:
        """Nothing was measured."""
        return {}
