"""Growing pauses between attempts at a line that is down."""

from __future__ import annotations

import random
from collections.abc import Iterator


class Backoff:
    """Pauses in seconds: doubled each time, jittered, up to the longest."""

    def __init__(self, first_s: float, longest_s: float, chance: random.Random) -> None:
        self._next_s = first_s
        self._longest_s = longest_s
        self._chance = chance
        self.used = False

    def __iter__(self) -> Iterator[float]:
        return self

    def __next__(self) -> float:
        pause = self._next_s * self._chance.uniform(0.5, 1.0)
        self._next_s = min(2 * self._next_s, self._longest_s)
        self.used = True
        return pause
