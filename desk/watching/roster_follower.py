"""Follows the roster, whoever writes it: the page, the port, or a command beside them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Final

from nomoat.aggregation.errors import NomoatError
from nomoat.desk.watching.events import Sink, of_roster
from nomoat.server.community.database import Database

LOOK_S: Final = 2.0

log = logging.getLogger(__name__)


class RosterFollower:
    """Tells `sinks` of every entry that is added from now on."""

    def __init__(self, store: Database, sinks: Sequence[Sink]) -> None:
        self._store = store
        self._sinks = sinks
        self._known = store.roster_length()

    def look(self) -> None:
        """Tell of what was added since the last look."""
        if self._store.roster_length() <= self._known:
            return
        for entry in self._store.roster_entries(self._known):
            self._known += 1
            for sink in self._sinks:
                sink(of_roster(entry))

    def run(self, stop: threading.Event) -> None:
        """Look every two seconds until `stop` is set."""
        while not stop.wait(LOOK_S):
            try:
                self.look()
            except NomoatError as problem:
                log.warning("the roster could not be read: %s", problem)
