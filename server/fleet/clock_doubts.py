"""Members whose clocks differ from the coordinator's, all by the same: then it is this one's."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from nomoat.flower.headers import MAX_SKEW_S

LOOK_BACK_S = 900.0
AGAIN_S = 900.0
FEWEST = 2


@dataclass
class ClockDoubts:
    """Differences of the last quarter of an hour, by member."""

    _found: dict[str, tuple[float, int]] = field(default_factory=dict)
    _told: tuple[float, int] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, member: str, ahead_s: int, at: float) -> str | None:
        """Note a member's difference; a line for the operator if others have the same, seldom.

        ahead_s: of its clock before this one. at: seconds that only go forward.
        """
        with self._lock:
            self._found[member] = (at, ahead_s)
            self._found = {
                name: seen for name, seen in self._found.items() if at - seen[0] <= LOOK_BACK_S
            }
            agreeing = [a for _, a in self._found.values() if abs(a - ahead_s) <= MAX_SKEW_S]
            if len(agreeing) < FEWEST or self._told_lately(ahead_s, at):
                return None
            self._told = (at, ahead_s)
        where = "behind" if ahead_s > 0 else "ahead of"
        return (
            f"this machine's clock is {abs(ahead_s)} s {where} those of {len(agreeing)} members: "
            "if it is wrong, set it (NTP); they take no part until the clocks agree"
        )

    def _told_lately(self, ahead_s: int, at: float) -> bool:
        """Return True if this difference was told; that of a clock set once more was not."""
        if self._told is None:
            return False
        return at - self._told[0] < AGAIN_S and abs(ahead_s - self._told[1]) <= MAX_SKEW_S
