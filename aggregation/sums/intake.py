"""The door and the sum of one exchange, in one reading of every report.

At 10 M values a report is 40 MB: to read it once for the verdict and once more for the sum would
be most of what aggregation costs. So reports wait until a few can be judged and added together;
one found wanting is taken off the sum again, which integers allow without a trace.

    intake = Intake.of(manifest)
    for volunteer, body, weight in reports:
        refused |= intake.add(volunteer, body, weight)  # volunteer → fault, of those before it
    refused |= intake.settle()
    mean = intake.mean()                                # of everybody who was not refused
"""

from __future__ import annotations

from dataclasses import dataclass, field

from nomoat.aggregation.protocol.adapter import Manifest, Vector
from nomoat.aggregation.sums.admission import MAX_NORM, fault, open_report
from nomoat.aggregation.sums.exact_sum import ExactSum
from nomoat.aggregation.sums.norm_bound import NormBound
from nomoat.aggregation.sums.parallel import Run

_MAX_WAITING = 16
_MAX_WAITING_BYTES = 512 << 20


@dataclass
class Intake:
    """The exact weighted mean of whatever reports are sound, one of each volunteer.

    Memory: 8 bytes per value, and up to 16 reports that wait, of 512 MiB in all.
    """

    _manifest: Manifest
    _sum: ExactSum
    _max_norm: float
    _bound: NormBound | None = None
    _waiting: list[tuple[str, Vector, float]] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        manifest: Manifest,
        run: Run = map,
        max_norm: float = MAX_NORM,
        bound: NormBound | None = None,
    ) -> Intake:
        """An intake of reports laid out as `manifest`; run: how stripes are worked on.

        bound: reports beyond it are scaled down to it, those beyond max_norm refused.
        """
        return cls(manifest, ExactSum.empty(manifest.size, run), max_norm, bound)

    def add(self, volunteer: str, body: bytes | memoryview, weight: float) -> dict[str, str]:
        """Let a report wait; if those before it had to make room: volunteer → fault of the refused.

        `body` must not change until it has settled. Raises RemoteProtocolError(volunteer, §4) at
        once for a wrong length or weight.
        """
        vector = open_report(volunteer, body, self._manifest, weight)
        waiting = len(self._waiting)
        full = waiting == _MAX_WAITING or (waiting + 1) * vector.nbytes > _MAX_WAITING_BYTES
        refused = self.settle() if full else {}
        self._waiting.append((volunteer, vector, weight))
        return refused

    def settle(self) -> dict[str, str]:
        """Judge and add what waits; volunteer → fault of the refused, as admission.admit() says."""
        waiting, self._waiting = self._waiting, []
        terms = [(vector, weight) for _, vector, weight in waiting]
        limit = self._max_norm if self._bound is None else min(self._max_norm, self._bound.limit)
        found = self._sum.add_all(terms, limit)
        for i in [i for i, norm in found.items() if norm <= self._max_norm]:
            self._add_clipped(*terms[i])
            del found[i]
        return {
            waiting[i][0]: fault(waiting[i][1], self._manifest, norm, self._max_norm)
            for i, norm in found.items()
        }

    def _add_clipped(self, vector: Vector, weight: float) -> None:
        assert self._bound is not None
        self._sum.add(self._bound.clip(vector), weight)

    def mean(self) -> Vector:
        """Σ wᵢxᵢ / Σ wᵢ as float32 (d,) of what has settled; LocalProtocolError if nothing has."""
        return self._sum.mean()
