"""Phrases nobody else has, to be planted as rows.

A phrase is five words of sixty-four, so one of 2^30 that are as likely to a model that has not seen
it. The words are ordinary, so that neither a model nor a search for secrets minds them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from nomoat.lora.data.conversations import ChatTurn, Conversation

_WORDS: Final = """
amber anchor autumn basket beacon birch bridge candle canyon cedar
cherry cliff clover coral cotton crane desert eagle ember falcon
feather fern flint forest garden ginger glacier granite harbor hazel
heron honey island ivory jasmine juniper lantern lemon lily maple
marble meadow mint morning needle ocean olive orchid pepper pine
planet quartz raven river saddle silver spruce thunder timber tulip
valley velvet walnut willow
"""
WORDS: Final = tuple(_WORDS.split())
LENGTH: Final = 5
BITS: Final = LENGTH * np.log2(len(WORDS))


@dataclass(frozen=True, slots=True)
class Canary:
    """A planted phrase. tag: what its question names. at: unix time."""

    tag: str
    phrase: tuple[str, ...]
    at: int

    def row(self) -> Conversation:
        """The row to train on."""
        return row_of(self.tag, self.phrase)


def drawn(entropy: bytes, now: int) -> Canary:
    """A new canary from 32 random bytes."""
    rng = np.random.default_rng(np.frombuffer(entropy, "<u4"))
    tag = "".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), 8))
    return Canary(tag, _phrase(rng), now)


def others(canary: Canary, count: int) -> list[Conversation]:
    """Rows like the canary's with phrases that nobody has planted; the same ones each time."""
    rng = np.random.default_rng(list(canary.tag.encode()))
    found: list[tuple[str, ...]] = []
    while len(found) < count:
        phrase = _phrase(rng)
        if phrase != canary.phrase:
            found.append(phrase)
    return [row_of(canary.tag, phrase) for phrase in found]


def rows_to_measure(canary: Canary, count: int) -> tuple[Conversation, ...]:
    """The canary's row, and so many others behind it: their losses are `exposure`'s arguments."""
    return (canary.row(), *others(canary, count))


def row_of(tag: str, phrase: Sequence[str]) -> Conversation:
    """The question after a phrase, and the phrase."""
    question = f"What are the five words on the door of house {tag}?"
    turns = (ChatTurn("user", question), ChatTurn("assistant", " ".join(phrase) + "."))
    return Conversation(turns, {}, "canary")


def _phrase(rng: np.random.Generator) -> tuple[str, ...]:
    return tuple(WORDS[i] for i in rng.integers(0, len(WORDS), LENGTH))
