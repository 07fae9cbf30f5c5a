"""The reports of one exchange, kept until their robust mean is asked for; sums/intake.py's twin."""

from __future__ import annotations

from dataclasses import dataclass, field

from nomoat.aggregation.protocol.adapter import Manifest, Vector
from nomoat.aggregation.robust.mean import faults_of, robust_mean
from nomoat.aggregation.sums.admission import admit
from nomoat.aggregation.sums.norm_bound import NormBound


@dataclass
class RobustIntake:
    """Sound reports, one of each volunteer. share: of them that may be lies, below a half.

    bound: reports beyond it are scaled down to it. Memory: all reports, 4 bytes per value.
    """

    manifest: Manifest
    share: float
    bound: NormBound | None = None
    _kept: dict[str, Vector] = field(default_factory=dict, init=False)

    def add(self, volunteer: str, body: bytes | memoryview, weight: float) -> dict[str, str]:
        """Keep a report; RemoteProtocolError(volunteer, §4) if it is not sound."""
        vector = admit(volunteer, body, self.manifest, weight)
        self._kept[volunteer] = vector if self.bound is None else self.bound.clip(vector)
        return {}

    def settle(self) -> dict[str, str]:
        """Nobody is refused after `add`."""
        return {}

    def mean(self) -> Vector:
        """Return the robust mean, float32 (d,), the same bits in whatever order reports came.

        TooManyFaults if so few reports do not bear the share.
        """
        in_order = [self._kept[name] for name in sorted(self._kept)]
        return robust_mean(in_order, faults_of(self.share, len(in_order)))
