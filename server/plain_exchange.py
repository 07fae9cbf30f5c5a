"""The weighted mean of a cohort's uploads, unmasked: the coordinator sees each one.

The sum is exact, so the order in which reports arrive cannot change a bit of the result; memory is
one vector, however many volunteers report.
"""

from __future__ import annotations

import math

from nomoat.aggregation import wire
from nomoat.aggregation.adapter import Manifest, Vector
from nomoat.aggregation.admission import admit
from nomoat.aggregation.errors import RemoteProtocolError
from nomoat.aggregation.exact_sum import ExactSum
from nomoat.aggregation.messages import Decline, Report, ReportRequest
from nomoat.server.machine import Outgoing


class PlainExchange:
    """Ask each volunteer of the cohort for its report and add it up as it arrives."""

    def __init__(
        self,
        cohort: tuple[str, ...],
        request: ReportRequest,
        manifest: Manifest,
        minimum: int,
        deadline_s: float = math.inf,
    ) -> None:
        self._cohort = cohort
        self._request = request
        self._manifest = manifest
        self._minimum = minimum
        self._sum = ExactSum.empty(manifest.size)
        self._waiting = set(cohort)
        self._reported: set[str] = set()
        self._deadline_s = deadline_s
        self.next_deadline = math.inf
        self.mean: Vector | None = None
        self.contributors: tuple[str, ...] = ()
        self.failed: str | None = None

    @property
    def done(self) -> bool:
        """The mean is found, or cannot be."""
        return self.mean is not None or self.failed is not None

    def start(self, now: float) -> list[Outgoing]:
        """Request every report."""
        self.next_deadline = now + self._deadline_s
        packet = wire.encode(self._request)
        return [Outgoing(name, packet) for name in self._cohort]

    def receive(self, volunteer: str, packet: wire.Packet, now: float) -> list[Outgoing]:
        """Admit one report to the sum, or refuse it by its sender's name."""
        if volunteer not in self._waiting:
            return []
        if wire.peek_kind(packet, volunteer) == wire.kind_of(Decline):
            reason = wire.decode(packet, Decline, volunteer).reason
            raise RemoteProtocolError(volunteer, "§4", f"declined to report: {reason}")
        report = wire.decode(packet, Report, volunteer)
        if (report.round, report.exchange) != (self._request.round, self._request.exchange):
            raise RemoteProtocolError(volunteer, "§4", f"reported round {report.round}")
        vector = admit(volunteer, report.vector, self._manifest, report.weight)
        self._sum.add(vector, report.weight, checked=True)
        self._reported.add(volunteer)
        self._drop(volunteer)
        return []

    def leave(self, volunteer: str, reason: str, now: float) -> list[Outgoing]:
        """Go on without this volunteer."""
        self._drop(volunteer)
        return []

    def wake(self, now: float) -> list[Outgoing]:
        """Close at the deadline with the reports that are there."""
        if now >= self.next_deadline:
            for volunteer in sorted(self._waiting):
                self._drop(volunteer)
        return []

    def _drop(self, volunteer: str) -> None:
        self._waiting.discard(volunteer)
        if self._waiting:
            return
        self.contributors = tuple(sorted(self._reported))
        if len(self.contributors) < self._minimum:
            self.failed = f"{len(self.contributors)} of {self._minimum} reports valid"
        else:
            self.mean = self._sum.mean()
