"""Stragglers: who still trains for a round that went on without them, across rounds.

They are not asked anything new until they answer, so that a slow machine ends its training, and is
given the time it needs the next time. Who does not answer at all is silent.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Straggler:
    """A volunteer that owes an answer. asked, silent_at: seconds on the coordinator's clock."""

    name: str
    asked: float
    silent_at: float


class Stragglers:
    """The answers that are still owed, by message id. usual: seconds that a training took last."""

    def __init__(self) -> None:
        self.usual: dict[str, float] = {}
        self._owed: dict[str, Straggler] = {}

    @property
    def names(self) -> frozenset[str]:
        """The volunteers that owe an answer."""
        return frozenset(one.name for one in self._owed.values())

    @property
    def messages(self) -> Collection[str]:
        """The ids of the messages that are not answered."""
        return self._owed.keys()

    def took(self, name: str, seconds: float) -> None:
        """Note how long a training took; a quick one makes the next wait only half as long."""
        self.usual[name] = max(seconds, self.usual.get(name, 0.0) / 2)

    def keep(self, message_id: str, straggler: Straggler) -> None:
        """Go on waiting for an answer, beside the rounds."""
        self._owed[message_id] = straggler

    def answered(self, message_id: str, now: float, in_error: bool = False) -> bool:
        """Take note of an answer; False if nobody owes it."""
        found = self._owed.pop(message_id, None)
        if found is not None and not in_error:
            self.took(found.name, now - found.asked)
        return found is not None

    def ask_anew(self, name: str) -> list[str]:
        """The messages that a volunteer need not answer any more, as it is asked something new."""
        old = [key for key, one in self._owed.items() if one.name == name]
        for key in old:
            del self._owed[key]
        return old

    def give_up(self, now: float) -> dict[str, str]:
        """Message id → volunteer of those that are silent by now, who owe nothing any more."""
        late = {key: one.name for key, one in self._owed.items() if now >= one.silent_at}
        for key in late:
            del self._owed[key]
        return late
