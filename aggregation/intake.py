"""The door and the sum of one exchange, in one reading of every report.

At 10 M values a report is 40 MB: to read it once for the verdict and once more for the sum would
be most of what aggregation costs. So reports wait until a few can be judged and added together;
one found wanting is taken off the sum again, which integers allow without a trace.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from nomoat.aggregation.adapter import Manifest, Vector
from nomoat.aggregation.admission import DEFAULT_LIMITS, ReportLimits, fault, open_report
from nomoat.aggregation.exact_sum import ExactSum
from nomoat.aggregation.parallel import Run

_MAX_WAITING = 16
_MAX_WAITING_BYTES = 512 << 20


@dataclass
class Intake:
    """The exact weighted mean of whatever reports are sound.

    Memory: 8 bytes per value, and up to 16 reports or 512 MiB that wait.
    """

    _manifest: Manifest
    _sum: ExactSum
    _limits: ReportLimits
    _waiting: dict[str, tuple[Vector, float]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, manifest: Manifest, run: Run = map, limits: ReportLimits = DEFAULT_LIMITS
    ) -> Intake:
        """An intake of reports laid out as `manifest`; run: how stripes are worked on."""
        return cls(manifest, ExactSum.empty(manifest.size, run), limits)

    def add(self, volunteer: str, body: bytes | memoryview, weight: float) -> dict[str, str]:
        """Take a report in; volunteer → fault of those that waited and are refused now.

        `body` must not change until settle(). Raises RemoteProtocolError(volunteer, §4) at once
        for a wrong length or weight.
        """
        vector = open_report(volunteer, body, self._manifest, weight, self._limits)
        self._waiting[volunteer] = (vector, weight)
        waiting = len(self._waiting)
        if waiting >= _MAX_WAITING or waiting * vector.nbytes >= _MAX_WAITING_BYTES:
            return self.settle()
        return {}

    def settle(self) -> dict[str, str]:
        """Judge and add what waits; volunteer → fault of the refused, as admission.admit() says."""
        waiting, self._waiting = self._waiting, {}
        names = list(waiting)
        unsound = self._sum.add_all(list(waiting.values()), self._limits.max_norm)
        return {
            names[i]: fault(waiting[names[i]][0], self._manifest, norm, self._limits)
            for i, norm in unsound.items()
        }

    def mean(self) -> Vector:
        """Σ wᵢxᵢ / Σ wᵢ as float32 (d,) of what has settled; LocalProtocolError if nothing has."""
        return self._sum.mean()
