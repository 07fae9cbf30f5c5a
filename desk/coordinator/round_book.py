"""Every ended round, read once: pages are looked at more often than rounds end."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from nomoat.desk.coordinator.rounds import RoundView, round_view
from nomoat.server.community.database import Database
from nomoat.server.rounds.suspicion.claims import counted


@dataclass(frozen=True)
class TakenPart:
    """In how many sums a volunteer was, and the newest of those rounds.

    misfits: in how many of the last sums its loss of the candidate fitted nothing.
    """

    rounds: int
    last: int
    misfits: int = 0


@dataclass
class RoundBook:
    """The rounds of one community, as far as they have been read."""

    store: Database
    _rounds: list[RoundView] = field(default_factory=list, init=False)
    _counts: Counter[str] = field(default_factory=Counter, init=False)
    _last: dict[str, int] = field(default_factory=dict, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def rounds(self) -> tuple[RoundView, ...]:
        """Every round that has ended, oldest first."""
        with self._lock:
            self._read()
            return tuple(self._rounds)

    def taken_part(self) -> Mapping[str, TakenPart]:
        """Volunteer → its part in the sums so far."""
        with self._lock:
            self._read()
            odd = counted(view.misfits for view in self._rounds if view.summed)
            return {
                name: TakenPart(self._counts[name], self._last.get(name, 0), odd[name])
                for name in {*self._counts, *odd}
            }

    def _read(self) -> None:
        after = self._rounds[-1].number if self._rounds else -1
        for text in self.store.rounds_after(after):
            record = json.loads(text)
            self._rounds.append(round_view(record))
            self._counts.update(record["contributors"])
            self._last |= dict.fromkeys(record["contributors"], record["round"])
