"""Learns a community's other addresses while it answers, and looks there once it does not."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from nomoat.aggregation.errors import NomoatError

ASK_S = 600.0
PATIENCE_S = 30.0  # of silence, before anything else is tried
AGAIN_S = 60.0


@dataclass
class AddressWatch:
    """Looks now and then; `look` is told whether the line is up.

    learn: asks where else the community is. elsewhere: finds an address where it answers, None if
    there is none. move: goes on at that address.
    """

    learn: Callable[[], None]
    elsewhere: Callable[[], str | None]
    move: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic
    _learnt: float = field(default=float("-inf"), init=False)
    _silent: float | None = field(default=None, init=False)

    def look(self, up: bool) -> None:
        """Learn, or after half a minute of silence look elsewhere, once a minute."""
        now = self.clock()
        if up:
            back, self._silent = self._silent is not None, None
            if back or now - self._learnt >= ASK_S:  # a new statement takes a restart there
                self._learnt = now
                self._learn()
        elif self._silent is None:
            self._silent = now
        elif now - self._silent >= PATIENCE_S:
            self._silent = now - PATIENCE_S + AGAIN_S
            if (place := self.elsewhere()) is not None:
                self.move(place)

    def _learn(self) -> None:
        try:
            self.learn()
        except NomoatError:  # away, or the disk is full: later
            return
