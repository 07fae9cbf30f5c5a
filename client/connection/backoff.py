"""Growing pauses between attempts at a line that is down; how long a pull is left open."""

from __future__ import annotations

import random
from collections.abc import Iterator

HELD_ANYWHERE_S = 15
HELD_AT_MOST_S = 50


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


class HoldTime:
    """Seconds for which a pull may be held open: what the coordinator offers and the way allows.

    Some proxies cut a request off that is not answered within 30 s or a minute. After two in a row
    that ended so, no pull is held for longer than HELD_ANYWHERE_S.
    """

    def __init__(self) -> None:
        self._offered_s = 0
        self._cut = 0  # in a row
        self._bounded = False

    @property
    def offered(self) -> bool:
        """True if the coordinator says how long it holds pulls: these count as heartbeats there."""
        return self._offered_s > 0

    @property
    def seconds(self) -> int:
        """The most that may be asked for now."""
        if self._bounded or not self.offered:
            return HELD_ANYWHERE_S
        return min(self._offered_s, HELD_AT_MOST_S)

    def offer(self, header: str) -> None:
        """Take the coordinator's word; anything but a number is none."""
        short = header.isascii() and header.isdigit() and len(header) <= 4
        self._offered_s = int(header) if short else 0

    def ended(self, after_s: float, *, cut: bool) -> None:
        """Note the end of a pull; cut: without the coordinator's answer."""
        if after_s > HELD_ANYWHERE_S:
            self._cut = self._cut + 1 if cut else 0
            self._bounded = self._bounded or self._cut >= 2
