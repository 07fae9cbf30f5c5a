"""Privacy terms: what a community learns of single updates, and what noise hides, signed.

It is asked for before anybody joins, as the work terms are, and binds: a volunteer joins sums that
are audited, or whose noise is counted on, only as it agreed to (docs/protocol.md §5.6).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from nomoat.aggregation.errors import RemoteProtocolError
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.enrolment import Signature, community_id
from nomoat.aggregation.protocol.signing import BadSignature, SigningKey, verify
from nomoat.aggregation.protocol.wire import COORDINATOR

SECTION = "§5.6"
LABEL = "community.privacy"


@wire.message("community.privacy")
@dataclass(frozen=True, slots=True)
class PrivacyTerms:
    """Terms of every sum. audit_words: of the sketch asked of each update, 0 for none (§20).

    noise_multiplier: z, the noise of a sum over the bound on an update, 0 for none (§21); with it
    each volunteer is in `participations` sums at most, `min_gap` rounds apart at least, which comes
    to (epsilon, delta).
    """

    audit_words: Annotated[int, wire.Limit(0, 64)] = 0
    noise_multiplier: Annotated[float, wire.Limit(0, 1e6)] = 0.0
    epsilon: Annotated[float, wire.Limit(0, 1e6)] = 0.0
    delta: Annotated[float, wire.Limit(0, 1)] = 0.0
    participations: Annotated[int, wire.Limit(0, 1_000_000)] = 0
    min_gap: Annotated[int, wire.Limit(0, 1_000_000)] = 0
    signature: Signature = bytes(64)


def sign(terms: PrivacyTerms, key: SigningKey) -> PrivacyTerms:
    """Put the terms under the community's signature."""
    return replace(terms, signature=key.sign(LABEL, *_parts(terms, key.public)))


def check(terms: PrivacyTerms, public: bytes) -> PrivacyTerms:
    """Return `terms` if the community with this key signed them; else RemoteProtocolError."""
    try:
        verify(public, terms.signature, LABEL, *_parts(terms, public))
    except BadSignature:
        reason = "what it says of privacy is not signed by the community"
        raise RemoteProtocolError(COORDINATOR, SECTION, reason) from None
    return terms


def _parts(terms: PrivacyTerms, public: bytes) -> tuple[bytes, ...]:
    return (community_id(public), wire.encode(replace(terms, signature=bytes(64))).head)
