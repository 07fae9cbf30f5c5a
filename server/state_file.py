"""state.json in a community's folder: how its coordinator is doing."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nomoat.aggregation.errors import NomoatError
from nomoat.server.rounds.records import RoundRecord
from nomoat.server.rounds.watching import RoundProgress, Watcher
from nomoat.storage.atomic import replacing

log = logging.getLogger(__name__)

WRITTEN_EVERY_S = 0.5


@dataclass
class StateFile:
    """Keeps state.json, for whoever asks how the coordinator is doing, and passes everything on.

    online: {name: node id} of the volunteers who are.
    """

    path: Path
    port: int
    then: Watcher
    online: Callable[[], Mapping[str, int]]
    _written: float = field(default=0.0, init=False)
    _last: RoundProgress | None = field(default=None, init=False)
    _failing: bool = field(default=False, init=False)

    def progress(self, progress: RoundProgress) -> None:
        """Write it down if the phase is new, or half a second after the last time."""
        self.then.progress(progress)
        last = self._last
        news = last is None or (progress.round, progress.phase) != (last.round, last.phase)
        if news or (progress != last and time.monotonic() - self._written > WRITTEN_EVERY_S):
            self._write(progress)
            self._last = progress

    def ended(self, record: RoundRecord) -> None:
        """Write down how a round ended."""
        self.then.ended(record)
        phase = "committed" if record.committed else "abandoned"
        self._write(
            RoundProgress(record.round, phase, len(record.contributors), len(record.cohort))
        )

    def waiting(self, round_number: int, present: int, needed: int) -> None:
        """Write down that a round waits for volunteers."""
        self.progress(RoundProgress(round_number, "waiting for volunteers", present, needed))

    def _write(self, progress: RoundProgress) -> None:
        self._written = time.monotonic()
        state = {
            "pid": os.getpid(),
            "port": self.port,
            "round": progress.round,
            "phase": progress.phase,
            "answered": progress.answered,
            "asked": progress.asked,
            "online": sorted(self.online()),
            "at": int(time.time()),
        }
        try:
            with replacing(self.path) as file:
                file.write(json.dumps(state).encode())
            self._failing = False
        except NomoatError as problem:  # a full disk, perhaps; there may be room at the round's end
            if not self._failing:
                log.warning("%s", problem)
            self._failing = True
