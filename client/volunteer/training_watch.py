"""Ends a training that nobody waits for any more: its round has ended, as the community signed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from nomoat.aggregation.errors import NomoatError
from nomoat.aggregation.protocol.round_end import Lineage
from nomoat.client.volunteer.status import VolunteerStatus

log = logging.getLogger(__name__)

TRAINING = "train.local"
EVERY = 3  # looks; the coordinator is asked at each


@dataclass
class TrainingWatch:
    """Looks now and then. refresh: asks for the lineage; end: gives up what is being done."""

    known: Callable[[], Lineage | None]
    refresh: Callable[[], Lineage]
    end: Callable[[], None]
    _begun: tuple[int, int] | None = field(default=None, init=False)  # (answers before, round)
    _looks: int = field(default=0, init=False)

    def look(self, status: VolunteerStatus) -> None:
        """End the training if another round than its own is the present one by now."""
        if (status.doing, status.why) != ("working", TRAINING):
            self._begun = None
            return
        if self._begun is None or self._begun[0] != status.answered:
            known = self.known()  # a task is only begun in the present round
            self._begun = None if known is None else (status.answered, known.next_round)
            self._looks = 0
            return
        self._looks += 1
        if self._looks % EVERY == 0 and self._present() > self._begun[1]:
            log.info("round %d has ended: its training is given up", self._begun[1])
            self.end()

    def _present(self) -> int:
        try:
            return self.refresh().next_round
        except NomoatError:  # away, or lying: told where tasks are checked
            return 0
