"""The edition of the terms that holds while a community is up, and who may be asked under it."""

from __future__ import annotations

from collections.abc import Mapping

from nomoat.aggregation.protocol.community.terms import TermsEdition, sign
from nomoat.aggregation.protocol.signing import SIGNATURE_BYTES
from nomoat.aggregation.protocol.work_terms import WorkTerms
from nomoat.server.community.opened import OpenCommunity
from nomoat.server.consent.ledger import ConsentLedger


def announced(community: OpenCommunity, work: WorkTerms, now: int) -> TermsEdition:
    """Return the terms that hold from now on, numbered and signed. now: unix time."""
    rounds, blank = community.settings.rounds, bytes(SIGNATURE_BYTES)
    least, weak = rounds.least_reports, rounds.allow_weak
    unsigned = TermsEdition(1, 0, rounds.secure, least, weak, work, blank)
    return sign(community.consents.edition(unsigned, now), community.registrar.key)


def agreeing(consents: ConsentLedger, willing: Mapping[str, int]) -> dict[str, int]:
    """Return who of `willing` has not agreed to stricter terms: the others refuse every round."""
    refusing = consents.refusing()
    return {name: node for name, node in willing.items() if name not in refusing}
