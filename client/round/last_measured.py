"""The candidate that was measured last: mostly the version that comes next."""

from __future__ import annotations

from dataclasses import dataclass, field

from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.client.round.observer import RoundObserver
from nomoat.client.round.work import EvaluateWork, Work

MOST_BYTES = 32 << 20  # kept in memory from one round to the next


@dataclass
class LastMeasured(RoundObserver):
    """Keeps a small one, so that a version that is here already is not fetched once more."""

    _adapter: Adapter | None = field(default=None, init=False)

    def begun(self, work: Work) -> None:
        """A candidate is about to be measured."""
        if isinstance(work, EvaluateWork):
            small = work.adapter.vector.nbytes <= MOST_BYTES
            self._adapter = work.adapter if small else None

    def adapter(self, digest: bytes) -> Adapter | None:
        """Return the adapter of this digest, if it is the one that was measured last."""
        found = self._adapter
        return found if found is not None and found.digest == digest else None
