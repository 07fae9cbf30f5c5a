"""Asks the coordinator what it waits for, while this volunteer waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from nomoat.aggregation.errors import NomoatError
from nomoat.client.volunteer.status import VolunteerStatus
from nomoat.client.volunteer.status_writer import StatusWriter

SOON_S, LATER_S = 10.0, 60.0
SOON = 6  # looks, then later


@dataclass
class PresenceWatch:
    """Looks now and then. ask: what is waited for, in words; None from an older coordinator."""

    ask: Callable[[], str | None]
    writer: StatusWriter
    clock: Callable[[], float] = time.monotonic
    _looks: int = field(default=0, init=False)
    _at: float = field(default=float("-inf"), init=False)

    def look(self, status: VolunteerStatus) -> None:
        """Have the status say what is waited for, if this volunteer waits."""
        if status.doing != "waiting":
            self._looks = 0
            return
        if self.clock() - self._at < (SOON_S if self._looks < SOON else LATER_S):
            return
        self._at, self._looks = self.clock(), self._looks + 1
        try:
            self.writer.company(self.ask())
        except NomoatError:  # away: the line says so
            self.writer.company(None)
