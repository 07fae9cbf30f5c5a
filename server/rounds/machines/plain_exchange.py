"""A cohort's uploads, unmasked: the coordinator sees each one and sums it, or keeps it."""

from __future__ import annotations

import math
from collections.abc import Mapping

from nomoat.aggregation.errors import RemoteProtocolError
from nomoat.aggregation.methods.base import PlaintextReport
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.adapter import Manifest, Vector
from nomoat.aggregation.protocol.messages import Decline, Report, ReportRequest
from nomoat.aggregation.robust.intake import RobustIntake
from nomoat.aggregation.robust.mean import TooManyFaults
from nomoat.aggregation.sums.admission import admit
from nomoat.aggregation.sums.intake import Intake
from nomoat.aggregation.sums.norm_bound import NormBound
from nomoat.aggregation.sums.parallel import Run
from nomoat.server.rounds.machines.evidence import SessionEvidence
from nomoat.server.rounds.machines.interfaces import Outgoing
from nomoat.server.rounds.machines.patience import Waiting

FOREVER = Waiting()

EQUAL = 1.0  # a report's weight, whatever it says of itself


class ReportCollection:
    """Ask each volunteer of the cohort for its report, and admit or refuse it by its name.

    What becomes of a report is a subclass's business: `_take`, `_close`, `_finish`.
    """

    def __init__(
        self,
        cohort: tuple[str, ...],
        request: ReportRequest,
        minimum: int,
        waiting: Waiting = FOREVER,
    ) -> None:
        self._cohort = cohort
        self._request = request
        self._minimum = minimum
        self._waiting = set(cohort)
        self._reported: set[str] = set()
        self._over = False
        self._waits = waiting
        self._asked = 0.0
        self._answered: list[float] = []
        self.next_deadline = math.inf
        self.mean: Vector | None = None
        self.uploads: tuple[PlaintextReport, ...] = ()
        self.contributors: tuple[str, ...] = ()
        self.refused: dict[str, str] = {}
        self.lost: dict[str, str] = {}
        self.failed: str | None = None
        self.bound: NormBound | None = None  # every report has been scaled down to it

    @property
    def done(self) -> bool:
        """Everyone has answered, or is out."""
        return self._over

    @property
    def evidence(self) -> SessionEvidence:
        """Return who was silent; a wrong report costs the others nothing."""
        return SessionEvidence(silent=frozenset(self.lost), failed=self.failed is not None)

    def start(self, now: float) -> list[Outgoing]:
        """Request every report."""
        self._asked = now
        self.next_deadline = self._waits.until(now, (), self._cohort)
        packet = wire.encode(self._request)
        return [Outgoing(name, packet) for name in self._cohort]

    def receive(self, volunteer: str, packet: wire.Packet, now: float) -> list[Outgoing]:
        """Take one report, or refuse it by its sender's name: at once, or in `refused` later."""
        if volunteer not in self._waiting:
            return []
        if wire.peek_kind(packet, volunteer) == wire.kind_of(Decline):
            reason = wire.decode(packet, Decline, volunteer).reason
            raise RemoteProtocolError(volunteer, "§4", f"declined to report: {reason}")
        report = wire.decode(packet, Report, volunteer)
        if (report.round, report.exchange) != (self._request.round, self._request.exchange):
            raise RemoteProtocolError(volunteer, "§4", f"reported round {report.round}")
        self._take(volunteer, report)
        self._reported.add(volunteer)
        self._answered.append(now)
        self._drop(volunteer)
        self.next_deadline = self._waits.until(self._asked, self._answered, self._waiting)
        return []

    def leave(self, volunteer: str, reason: str, now: float) -> list[Outgoing]:
        """Go on without this volunteer."""
        self._drop(volunteer)
        return []

    def wake(self, now: float) -> list[Outgoing]:
        """Close at the deadline with the reports that are there."""
        if now >= self.next_deadline:
            self.lost = dict.fromkeys(sorted(self._waiting), "too late to report")
            for volunteer in sorted(self._waiting):
                self._drop(volunteer)
        return []

    def _take(self, volunteer: str, report: Report) -> None:
        raise NotImplementedError

    def _close(self) -> None:
        """Nothing more will come."""

    def _finish(self) -> None:
        raise NotImplementedError

    def _drop(self, volunteer: str) -> None:
        self._waiting.discard(volunteer)
        if self._waiting or self._over:
            return
        self._over = True
        self._close()
        self.contributors = tuple(sorted(self._reported - self.refused.keys()))
        if len(self.contributors) < self._minimum:
            self.failed = f"{len(self.contributors)} of {self._minimum} reports valid"
        else:
            self._finish()


class PlainExchange(ReportCollection):
    """The mean of the reports, added up as they arrive, a few at a time.

    The sum is exact, so the order in which reports arrive cannot change a bit of the result;
    memory is that of an Intake, however many volunteers report. intake: an empty one, or a
    RobustIntake, which keeps every report.
    """

    def __init__(
        self,
        cohort: tuple[str, ...],
        request: ReportRequest,
        intake: Intake | RobustIntake,
        minimum: int,
        waiting: Waiting = FOREVER,
    ) -> None:
        super().__init__(cohort, request, minimum, waiting)
        self._intake = intake

    def _take(self, volunteer: str, report: Report) -> None:
        self.refused |= self._intake.add(volunteer, report.vector, EQUAL)

    def _close(self) -> None:
        self.refused |= self._intake.settle()

    def _finish(self) -> None:
        try:
            self.mean = self._intake.mean()
        except TooManyFaults as problem:
            self.failed = str(problem)


class EachExchange(ReportCollection):
    """Every report by itself, for methods that need each volunteer's factors.

    ranks: volunteer → the rank it trained; manifests: rank → the layout of its report. Memory is
    all reports, as such a method stacks them; they end up in the order of names, for equal bits.
    run: how blocks of a report are read.
    """

    def __init__(
        self,
        ranks: Mapping[str, int],
        request: ReportRequest,
        manifests: Mapping[int, Manifest],
        minimum: int,
        waiting: Waiting = FOREVER,
        run: Run = map,
    ) -> None:
        super().__init__(tuple(sorted(ranks)), request, minimum, waiting)
        self._run = run
        self._ranks = ranks
        self._manifests = manifests
        self._kept: dict[str, PlaintextReport] = {}

    def _take(self, volunteer: str, report: Report) -> None:
        rank = self._ranks[volunteer]
        vector = admit(volunteer, report.vector, self._manifests[rank], EQUAL, run=self._run)
        self._kept[volunteer] = PlaintextReport(EQUAL, vector, rank)

    def _finish(self) -> None:
        self.uploads = tuple(self._kept[name] for name in self.contributors)
