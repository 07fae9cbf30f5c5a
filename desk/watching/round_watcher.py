"""A watcher of rounds that makes events of what it is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from nomoat.desk.watching.events import CommunityEvent, Sink, of_phase, of_round
from nomoat.server.rounds.records import RoundRecord
from nomoat.server.rounds.watching import RoundProgress


@dataclass
class RoundEvents:
    """Tells `sinks` of each phase and each end. clock: unix seconds."""

    sinks: Sequence[Sink]
    clock: Callable[[], float]
    _phase: tuple[int, str] | None = field(default=None, init=False)

    def progress(self, progress: RoundProgress) -> None:
        """Take note of a phase that is new."""
        phase = (progress.round, progress.phase)
        if phase != self._phase:
            self._phase = phase
            self._tell(of_phase(*phase, self.clock()))

    def ended(self, record: RoundRecord) -> None:
        """Take note that a round ended."""
        self._tell(of_round(record, self.clock()))

    def _tell(self, event: CommunityEvent) -> None:
        for sink in self.sinks:
            sink(event)
