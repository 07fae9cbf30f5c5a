"""Work terms: a volunteer's work for a community in a round and in a day, under its signature.

It is asked for before anybody joins, without proof of who asks, and binds: a volunteer declines
what is more than it agreed to (docs/protocol.md §5.4).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from nomoat.aggregation.errors import RemoteProtocolError
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.enrolment import Signature, community_id
from nomoat.aggregation.protocol.messages import TrainSettings
from nomoat.aggregation.protocol.signing import BadSignature, SigningKey, verify
from nomoat.aggregation.protocol.wire import COORDINATOR

SECTION = "§5.4"
LABEL = "community.work"
DAY_S = 86_400
AT_LEAST = 24
MOST_A_DAY = 1440  # rounds, where a community does not say how long it waits between two


@wire.message("community.work")
@dataclass(frozen=True, slots=True)
class WorkTerms:
    """A round's settings, with the highest learning rate of any round, and the bounds around them.

    adapter_values: of the largest adapter that is ever sent out. rounds_per_day: begun in 24 hours.
    """

    settings: TrainSettings
    adapter_values: Annotated[int, wire.Limit(1, 2**40)]
    rounds_per_day: Annotated[int, wire.Limit(1, 1_000_000)]
    signature: Signature


def rounds_per_day(round_every_s: float, max_rounds: int) -> int:
    """The rounds that can begin within a day, given the seconds between two at least.

    max_rounds: that are to count; as many again may come to nothing, and AT_LEAST are left to
    communities of few.
    """
    paced = int(DAY_S / round_every_s) + 1 if round_every_s > 0 else MOST_A_DAY
    return max(1, min(paced, MOST_A_DAY, AT_LEAST + 2 * max_rounds))


def sign(terms: WorkTerms, key: SigningKey) -> WorkTerms:
    """Put the terms under the community's signature."""
    return replace(terms, signature=key.sign(LABEL, *_parts(terms, key.public)))


def check(terms: WorkTerms, public: bytes) -> WorkTerms:
    """Return `terms` if the community with this key signed them; else RemoteProtocolError."""
    try:
        verify(public, terms.signature, LABEL, *_parts(terms, public))
    except BadSignature:
        reason = "what it asks of a machine is not signed by the community"
        raise RemoteProtocolError(COORDINATOR, SECTION, reason) from None
    return terms


def _parts(terms: WorkTerms, public: bytes) -> tuple[bytes, ...]:
    return (community_id(public), wire.encode(replace(terms, signature=bytes(64))).head)
