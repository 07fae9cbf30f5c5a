"""Voices of one base model, by name, and where they come from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from nomoat.aggregation.errors import UsageError
from nomoat.aggregation.protocol.adapter import Adapter

BASE: Final = "base"
COMMUNITY: Final = "community"
PERSONAL: Final = "personal"
NUMBERED: Final = re.compile(r"community@(\d{1,7})")


class UnknownVoice(UsageError):
    """There is no voice of this name."""

    def __init__(self, voice: str, known: tuple[str, ...]) -> None:
        super().__init__(f"there is no {voice!r} here; there are {', '.join(known)}")
        self.voice = voice


@dataclass(frozen=True)
class BaseRef:
    """A base model. place: its folder or hub id here; name: what it is called.

    hash: of the content that adapters were trained on, 32 bytes; empty if nobody said.
    """

    place: str
    name: str
    hash: bytes = b""
    license: str = ""


class Source(Protocol):
    """Adapters of one base, by name. Every method may be called by any thread."""

    @property
    def title(self) -> str:
        """The name of the community, run or folder."""

    @property
    def base(self) -> BaseRef:
        """The base model."""

    def voices(self) -> tuple[str, ...]:
        """Names of all voices as they are now: base, community, community@N …, personal."""

    def exact(self, voice: str) -> str:
        """The name that always means the same: community → community@12; UnknownVoice if none."""

    def load(self, voice: str) -> Adapter:
        """The adapter of a voice that is not the base."""

    def card(self, voice: str) -> str:
        """In words: where the voice comes from."""

    def losses(self, voice: str) -> Mapping[str, float]:
        """Held-out losses that were measured, by name, nats per token."""

    def by_volunteer(self, voice: str) -> Mapping[str, float]:
        """The loss each volunteer measured on its own held-out rows; empty if not on record."""


def check_known(voice: str, known: tuple[str, ...]) -> str:
    """`voice`, if it is among `known`; else UnknownVoice."""
    if voice not in known:
        raise UnknownVoice(voice, known)
    return voice
