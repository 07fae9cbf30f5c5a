"""The coordinator's audit between R2 and R3: who is larger than the bound leaves the sum (§20).

What a sketch shows of a volunteer follows from what it signed itself: its masked vector, and the
sketches of its masks. That those are true shows only when masks are revealed (claims.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from nomoat.aggregation.secagg import labels
from nomoat.aggregation.secagg.audit.evidence import Evidence, SizeEvidence
from nomoat.aggregation.secagg.audit.judgement import DOUBT, TOLERANCE, leaving
from nomoat.aggregation.secagg.audit.terms import norm_test
from nomoat.aggregation.secagg.messages import SKETCH_BYTES, MaskedReport, SketchReport
from nomoat.aggregation.secagg.server.claims import Sketch, SketchClaims
from nomoat.aggregation.secagg.server.collector import Collector, Outgoing, ServerPhase, TooFew
from nomoat.aggregation.secagg.server.summing import Progress, signing_of


class CollectSketches(Collector):
    """The audit's only exchange (§20.4). kept: index → its masked vector, as it was signed, until
    it is over; seen: index → the sketch of that vector.
    """

    phase = ServerPhase.SKETCHES
    accepts = SketchReport

    def __init__(
        self, progress: Progress, kept: Mapping[int, MaskedReport], seen: Mapping[int, Sketch]
    ) -> None:
        self.expected = progress.session.identities(progress.survivors)
        self._progress, self._kept, self._seen = progress, kept, seen
        self._claims: dict[int, SketchClaims] = {}
        self._faults: dict[bytes, str] = {}
        self._proofs: dict[bytes, Evidence] = {}
        self._sizes: dict[int, float] = {}

    @property
    def faults(self) -> dict[bytes, str]:
        """Identity → how much too large its update is."""
        return self._faults

    @property
    def proofs(self) -> dict[bytes, Evidence]:
        """Identity → evidence of how large its update is."""
        return self._proofs

    @property
    def sizes(self) -> dict[bytes, float]:
        """Identity → how large its update is, over the bound, if it told the truth of its masks."""
        return {self._progress.session.members[i].identity: s for i, s in self._sizes.items()}

    def take(self, sender: bytes, report: SketchReport) -> None:
        """Keep one volunteer's sketches."""
        progress, session = self._progress, self._progress.session
        index = session.index_of[sender]
        others = [i for i in session.circle(index, progress.members) if i != index]
        if len(report.pairs) != SKETCH_BYTES * len(others):
            raise session.bad(index, "§20.4", "it did not sketch one mask per neighbour")
        signed = (progress.statement.shared, report.own, report.pairs)
        session.check_signed(index, report.signature, labels.SIGN_SKETCH, *signed)
        words = np.frombuffer(report.pairs, "<u4").reshape(len(others), -1)
        pairs = dict(zip(others, words, strict=True))
        self._claims[index] = SketchClaims(np.frombuffer(report.own, "<u4"), pairs, report)

    def close(self) -> tuple[Collector, Outgoing]:
        """Leave out who is too large, silent or in a dispute, set aside who is in doubt; go on."""
        progress = replace(self._progress, claims=self._claims)
        session = progress.session
        test = norm_test(session.offer, len(session.members), session.layout.length)
        self._sizes = sizes = {i: test.size(self._sketch_of(i)) for i in self._claims}
        large = {i for i, size in sizes.items() if size > TOLERANCE}
        self._faults = {
            session.members[i].identity: f"its update is {sizes[i]:.1f} times the bound"
            for i in sorted(large)
        }
        self._proofs = {
            session.members[i].identity: SizeEvidence(progress.part_about(i), self._kept[i])
            for i in large
        }
        room = len(self._claims) - session.needed.survivors
        gone = leaving(self._disputes(), large, session.needed.corrupt, room)
        survivors = self._without_doubtful(frozenset(self._claims) - gone)
        for index in progress.survivors - survivors:
            progress.total.remove(self._kept[index].masked)
        if len(survivors) < session.needed.survivors:
            raise TooFew("too few volunteers are left after the audit")
        return signing_of(replace(progress, survivors=survivors))

    def _without_doubtful(self, survivors: frozenset[int]) -> frozenset[int]:
        """Set aside whose size is in doubt, the largest first, as many as the session can spare."""
        doubtful = sorted(survivors, key=lambda i: (self._sizes[i], i))
        doubtful = [i for i in doubtful if self._sizes[i] > DOUBT]
        while doubtful and not self._progress.can_go_on_with(survivors - {*doubtful}):
            doubtful = doubtful[1:]
        return survivors - {*doubtful}

    def _sketch_of(self, index: int) -> Sketch:
        """R·x of a volunteer's update, as far as what it says of its masks is true."""
        claims = self._claims[index]
        left: Sketch = self._seen[index] - claims.own
        for other, sketch in claims.pairs.items():
            left = left - sketch if other > index else left + sketch
        return left

    def _disputes(self) -> Iterator[tuple[int, int]]:
        """Pairs whose ends say different things of their common mask."""
        for index, claims in self._claims.items():
            for other, sketch in claims.pairs.items():
                theirs = self._claims.get(other)
                if theirs is None or other < index:
                    continue
                if not np.array_equal(sketch, theirs.pairs[index]):
                    yield index, other
