"""The coordinator's collector of R2: masked vectors go straight into one running sum (§13)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from nomoat.aggregation.errors import LocalProtocolError
from nomoat.aggregation.secagg import labels
from nomoat.aggregation.secagg.audit.sketch import Signs, sketch_packed
from nomoat.aggregation.secagg.audit.terms import point_of
from nomoat.aggregation.secagg.masks.masking import MaskedSum
from nomoat.aggregation.secagg.messages import AuditOpening, MaskedReport, SharesReport
from nomoat.aggregation.secagg.server.collector import Collector, Outgoing, ServerPhase, TooFew
from nomoat.aggregation.secagg.server.formed_session import FormedSession
from nomoat.aggregation.secagg.server.sketching import CollectSketches
from nomoat.aggregation.secagg.server.summing import Progress, signing_of
from nomoat.aggregation.secagg.transcript import to_bitmap


class CollectMasked(Collector):
    """R2 (§13)."""

    phase = ServerPhase.MASKED
    accepts = MaskedReport

    def __init__(
        self, session: FormedSession, dealt: Mapping[int, SharesReport], members: frozenset[int]
    ) -> None:
        self.expected = session.identities(members)
        self._session, self._dealt, self._members = session, dealt, members
        self._bitmap = to_bitmap(members, len(session.members))
        self._point = point_of(session.offer, len(session.members))
        self._sum = MaskedSum(session.layout.length, self._point)
        self._added: set[int] = set()
        self._kept: dict[int, MaskedReport] = {}  # with an audit alone, until it is over
        self._seen: dict[int, NDArray[np.uint32]] = {}

    def take(self, sender: bytes, report: MaskedReport) -> None:
        """Add one masked vector to the sum, if it is signed and whole."""
        session, index = self._session, self._session.index_of[sender]
        try:
            self._sum.check(report.masked)
        except LocalProtocolError as problem:
            raise session.bad(index, "§13.3", str(problem)) from None
        digest = hashlib.sha256(report.masked).digest()
        signed = (self._bitmap, digest)
        session.check_signed(index, report.signature, labels.SIGN_MASKED, *signed)
        self._sum.add(report.masked)
        self._added.add(index)
        if session.audit_seed:
            self._sketch(index, report)

    def _sketch(self, index: int, report: MaskedReport) -> None:
        session = self._session
        signs = Signs(session.audit_seed, session.transcript)
        length, bits = session.layout.length, self._point.wire_bits
        self._kept[index] = report
        self._seen[index] = sketch_packed(signs, report.masked, length, bits)

    def close(self) -> tuple[Collector, Outgoing]:
        """U3: whose vectors are in the sum; with an audit, those who are asked for sketches."""
        session = self._session
        if len(self._added) < session.needed.survivors:
            raise TooFew("too few volunteers sent a masked update")
        progress = Progress(session, self._dealt, self._members, frozenset(self._added), self._sum)
        if not session.audit_seed:
            return signing_of(progress)
        following = CollectSketches(progress, self._kept, self._seen)
        return following, dict.fromkeys(following.expected, AuditOpening(session.audit_seed))
