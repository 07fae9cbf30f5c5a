"""Steps of the coordinator's clock: who could not answer because of one is not blamed for it.

Calls are signed with the time of day, so nobody's is taken while the clock is wrong; and nobody is
heard while the machine sleeps.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from nomoat.server.rounds.machines.evidence import RoundEvidence

log = logging.getLogger(__name__)

STEP_S = 60.0


@dataclass
class ClockSteps:
    """The distance of two clocks. wall: unix time; steady: seconds that nobody sets."""

    wall: Callable[[], float]
    steady: Callable[[], float]
    _apart: float = field(init=False)

    def __post_init__(self) -> None:
        self._apart = self.wall() - self.steady()

    def excused(self, evidence: RoundEvidence) -> RoundEvidence:
        """Leave out who was silent in a round, if a clock was set since the one before."""
        apart = self.wall() - self.steady()
        step, self._apart = apart - self._apart, apart
        if abs(step) < STEP_S or not evidence.silent:
            return evidence
        log.warning(
            "this machine's clock was set by %+.0f s, or it slept: nobody is blamed for no answer",
            step,
        )
        return replace(evidence, silent=frozenset())
