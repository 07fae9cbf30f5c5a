"""Several masked sums in one round, over disjoint parts of its cohort: a bad one is left out.

Each part is a MaskedExchange of its own; nobody is in two, and nothing of one ever enters another,
whatever becomes of it (docs/protocol.md §19.9). A part whose mean honest updates cannot have is
left out with everybody in it; the mean of the others, each volunteer counting the same, is what the
round goes on with. Who was in a part that was left out is evidence (rounds/suspicion), no more.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from nomoat.aggregation.errors import LocalProtocolError
from nomoat.aggregation.methods.base import PlaintextReport
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.adapter import Vector
from nomoat.aggregation.sums.norm_bound import NormBound, norm_of
from nomoat.server.rounds.machines.evidence import SessionEvidence
from nomoat.server.rounds.machines.interfaces import Outgoing
from nomoat.server.rounds.machines.masked_exchange import MaskedExchange

FAR = 1.6  # times the median of the parts' norms; honest ones differ by 1.3 at most
FEWEST = 3  # parts; of two nobody can tell which is the odd one
LEFT_OUT = "in a sum that was left out: it may be anybody's in there"

FaultOfMean = Callable[[Vector], str | None]


class ParallelExchange:
    """The mean over all parts whose own mean has no fault.

    parts: each over volunteers of its own, else LocalProtocolError. fault: of a part's mean, None
    if it has none.
    """

    def __init__(
        self, parts: Mapping[tuple[str, ...], MaskedExchange], fault: FaultOfMean, bound: NormBound
    ) -> None:
        self._of = {name: part for members, part in parts.items() for name in members}
        self._members = tuple(parts)
        if len(self._of) != sum(map(len, parts)):
            raise LocalProtocolError("a volunteer in two sums of one round")
        self._parts = tuple(parts.values())
        self._fault = fault
        self._bad: dict[int, str] = {}  # the place of a part that is left out → why
        self.mean: Vector | None = None
        self.uploads: tuple[PlaintextReport, ...] = ()
        self.contributors: tuple[str, ...] = ()
        self.lost: dict[str, str] = {}
        self.refused: dict[str, str] = {}
        self.failed: str | None = None
        self.bound: NormBound | None = bound

    @property
    def done(self) -> bool:
        """True once every part is done."""
        return self.mean is not None or self.failed is not None

    @property
    def next_deadline(self) -> float:
        """The first of the parts'."""
        return min((part.next_deadline for part in self._open), default=math.inf)

    @property
    def evidence(self) -> SessionEvidence:
        """Return what each part has shown, and who was in those that are left out."""
        parts = tuple(part.evidence for part in self._parts)
        left_out = tuple(self._parts[place].contributors for place in sorted(self._bad))
        return SessionEvidence(parts=parts, left_out=left_out, failed=self.failed is not None)

    def start(self, now: float) -> list[Outgoing]:
        """Open every part's session."""
        outgoing = [message for part in self._parts for message in part.start(now)]
        return self._settled(outgoing)

    def receive(self, volunteer: str, packet: wire.Packet, now: float) -> list[Outgoing]:
        """Take one answer, in the part that its sender is in."""
        part = self._of.get(volunteer)
        if part is None or part.done:
            return []
        return self._settled(part.receive(volunteer, packet, now))

    def leave(self, volunteer: str, reason: str, now: float) -> list[Outgoing]:
        """Go on without this volunteer in its part."""
        part = self._of.get(volunteer)
        if part is None or part.done:
            return []
        return self._settled(part.leave(volunteer, reason, now))

    def wake(self, now: float) -> list[Outgoing]:
        """Act on the parts' deadlines."""
        return self._settled([message for part in self._open for message in part.wake(now)])

    @property
    def _open(self) -> tuple[MaskedExchange, ...]:
        return tuple(part for part in self._parts if not part.done)

    def _settled(self, outgoing: list[Outgoing]) -> list[Outgoing]:
        """Combine the parts' means once the last part is done."""
        if not self.done and not self._open:
            self._combine()
        return outgoing

    def _combine(self) -> None:
        self._bad = self._faults()
        good = [
            part
            for place, part in enumerate(self._parts)
            if part.mean is not None and place not in self._bad
        ]
        self.contributors = tuple(sorted(name for part in good for name in part.contributors))
        for place, part in enumerate(self._parts):
            if part not in good:
                why = LEFT_OUT if place in self._bad else str(part.failed)
                self.lost |= dict.fromkeys(self._members[place], why)
            self.lost |= part.lost
        if good:
            means = [part.mean for part in good if part.mean is not None]
            self.mean = mean_of(means, [len(part.contributors) for part in good])
        else:
            self.failed = next(iter(self._bad.values()), self._parts[0].failed)

    def _faults(self) -> dict[int, str]:
        """Return the parts with a bad sum and what is wrong with it."""
        assert self.bound is not None
        means = {n: part.mean for n, part in enumerate(self._parts) if part.mean is not None}
        found = {
            place: str(part.failed)
            for place, part in enumerate(self._parts)
            if part.evidence.undecoded
        }
        size = self.bound.size
        odd = far_out({place: norm_of(mean[:size]) for place, mean in means.items()})
        for place, mean in means.items():
            why = self._fault(mean)
            if why is not None or place in odd:
                found[place] = why or "the mean's norm is far above that of the other sums"
        return found


def far_out(norms: Mapping[int, float]) -> frozenset[int]:
    """Those norms that are far above the median of all; none of fewer than three."""
    if len(norms) < FEWEST:
        return frozenset()
    middle = statistics.median_low(norms.values())
    return frozenset(place for place, norm in norms.items() if norm > FAR * middle)


def mean_of(means: Sequence[Vector], counts: Sequence[int]) -> Vector:
    """The mean of everybody's updates, (d,) float32, from the means of parts of so many."""
    total = np.zeros(len(means[0]), np.float64)
    for mean, count in zip(means, counts, strict=True):
        total += mean.astype(np.float64) * count
    return (total / sum(counts)).astype(np.float32)
