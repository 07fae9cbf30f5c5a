"""One volunteer's case: what is held against it, recomputed here, and what it says to that."""

from __future__ import annotations

from dataclasses import dataclass

from nomoat.aggregation.errors import RemoteProtocolError, UsageError
from nomoat.aggregation.plain_text import lines
from nomoat.server.community.opened import OpenCommunity
from nomoat.server.conduct.cases import Cases, KeptAppeal, KeptEvidence
from nomoat.server.conduct.ledger import ConductLedger
from nomoat.server.conduct.sizes import false_accusations


@dataclass(frozen=True)
class EvidenceLine:
    """A piece of evidence. says: what it shows; holds: it shows that, computed again just now."""

    digest: str
    round: int
    holds: bool
    says: str


@dataclass(frozen=True)
class CaseView:
    """All that speaks for and against a volunteer. appealed: unix time, None without an appeal.

    strikes: what was noted of it and counts now. sizes: of its last audited updates, over the
    bound; odds: at which an honest volunteer at the bound is named in a round.
    """

    name: str
    standing: str
    reason: str
    strikes: tuple[str, ...]
    evidence: tuple[EvidenceLine, ...]
    sizes: tuple[float, ...]
    odds: float
    appeal: str
    appealed: int | None


def case_view(community: OpenCommunity, name: str) -> CaseView:
    """Look at a volunteer's case; UsageError if nobody has this name."""
    registrar = community.registrar
    known = registrar.database.applicant(name)
    if known is None:
        raise UsageError("no volunteer is called that")
    cases = Cases(registrar.database)
    said = cases.appeal_of(name) or KeptAppeal("", 0)
    return CaseView(
        name,
        known.standing.value,
        known.reason,
        tuple(str(each) for each in ConductLedger(registrar).counting() if each.volunteer == name),
        tuple(map(_line, cases.of(name))),
        tuple(cases.sizes_of(name)),
        false_accusations(),
        lines(said.text),
        said.at or None,
    )


def _line(kept: KeptEvidence) -> EvidenceLine:
    try:
        holds, says = True, kept.read().says
    except RemoteProtocolError as problem:
        holds, says = False, problem.reason
    return EvidenceLine(kept.digest.hex(), kept.round, holds, says)
