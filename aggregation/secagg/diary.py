"""The diary: a volunteer's memory of its sums, and which further sum that still permits (§19).

    rule = permitted(offer.., terms.., diary)     # raises: this update has left, refuse
    rule.check(cohort)                            # raises: not with these participants

A protocol that is right for one session is not right for two: two sums over the same updates and
almost the same volunteers differ by one update. So marks are only ever added; whatever may enter a
sum is marked before it leaves; and what a mark does not prove to be harmless is taken to be in a
sum whose participants are unknown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from nomoat.aggregation.errors import RemoteProtocolError
from nomoat.aggregation.protocol.wire import COORDINATOR
from nomoat.aggregation.secagg import labels

DAY_S = 86_400

Kind: TypeAlias = Literal["begun", "lost", "joined", "masked", "sketched", "signed", "revealed"]


@dataclass(frozen=True, slots=True)
class Mark:
    """One line of a volunteer's diary; it is on disk before the message it belongs to.

    version: what the update was trained from (32 bytes; a record of the lineage, or the adapter's
    digest where there is none). adapter: its digest. cohort: of a certified sum, cohort_digest of
    its participants. at: unix time. A diary begins with "begun". "lost" says that an earlier one is
    gone; with a version, that this was the first seen after that. Marks of before §19 have none of
    these.
    """

    kind: Kind
    session: bytes
    round: int
    exchange: int
    version: bytes = b""
    adapter: bytes = b""
    cohort: bytes = b""
    at: int = 0

    @property
    def left(self) -> bool:
        """True if an update may be in a sum because of what this mark stands before.

        Diaries of before §19 have no "masked": whoever had joined may have sent its update.
        """
        if self.kind == "lost":
            return bool(self.version)
        return self.kind != "begun" and (self.kind != "joined" or not self.adapter)


@dataclass(frozen=True, slots=True)
class Place:
    """A session's place in the order of sums: its version and adapter, its round and exchange.

    now: unix time. exchange counts the sums of one round, from 1.
    """

    round: int
    exchange: int
    version: bytes
    adapter: bytes
    now: int = 0


@dataclass(frozen=True, slots=True)
class CohortRule:
    """With whom an update may be summed, given the sums that went before (§19.3, §19.4).

    required: the very participants of the round's exchange before. known: participants of earlier
    sums from the same adapter; unknown: how many of those sums are not known to the last volunteer.
    repeats: how many sums from one adapter may differ from the first.
    """

    required: bytes | None = None
    known: frozenset[bytes] = field(default=frozenset())
    unknown: int = 0
    repeats: int = 0

    def check(self, cohort: Iterable[bytes]) -> None:
        """Raise RemoteProtocolError unless these identities may be the sum's participants."""
        digest = cohort_digest(cohort)
        if self.required is not None and digest != self.required:
            raise _refusal("§19.3", "the round's exchanges are not over the same participants")
        if len(self.known | {digest}) + self.unknown > 1 + self.repeats:
            raise _refusal("§19.4", "other participants than in the sum before, same adapter")


def cohort_digest(identities: Iterable[bytes]) -> bytes:
    """A set of participants in 32 bytes."""
    return labels.tagged_hash(labels.COHORT, *sorted(identities))


def permitted(place: Place, diary: Collection[Mark], repeats: int) -> CohortRule:
    """The rule for a sum at `place`; RemoteProtocolError if no sum there may hold this update."""
    if spent(place.round, place.version, diary) and not _goes_on(place, diary):
        raise _refusal("§19.2", "an update from this round or version has left already, masked")
    required = None
    if place.exchange > 1:
        required = _certified(diary, place.round, place.exchange - 1)
        if required is None:
            raise _refusal("§19.3", "the exchange before was not seen to its end")
    known, unknown = _earlier(place, diary)
    return CohortRule(required, known, unknown, repeats)


def spent(round_number: int, version: bytes, diary: Collection[Mark]) -> bool:
    """True if no update of this round, or from this version, may be begun any more (§19.2)."""
    return any(
        mark.left and (mark.round >= round_number or (version and mark.version == version))
        for mark in diary
    )


def set_back(diary: Collection[Mark], sent: Mapping[int, int]) -> bool:
    """True if more masked vectors have left than the diary holds marks of (§19.5).

    sent: round → how many have left, by another record of this machine. What was lost before, and
    has been answered for by waiting for a version, is not counted again.
    """
    settled = max((mark.round for mark in diary if mark.kind == "lost"), default=-1)
    marked = Counter(number for number, _ in {(m.round, m.session) for m in diary if m.left})
    return any(count > marked[number] for number, count in sent.items() if number > settled)


def lost(diary: Collection[Mark]) -> bool:
    """True if an earlier diary is gone and no version has been seen since (§19.5)."""
    gone = [mark for mark in diary if mark.kind == "lost"]
    return bool(gone) and not gone[-1].version


def _goes_on(place: Place, diary: Collection[Mark]) -> bool:
    """True if all that has left from here on are earlier exchanges of the very same round."""
    later = [m for m in diary if m.left and (m.round >= place.round or m.version == place.version)]
    return all(
        (mark.round, mark.version, mark.adapter) == (place.round, place.version, place.adapter)
        and mark.exchange < place.exchange
        for mark in later
    )


def _certified(diary: Collection[Mark], round_number: int, exchange: int) -> bytes | None:
    """The participants of a sum that this volunteer has seen certified."""
    for mark in diary:
        if (mark.round, mark.exchange) == (round_number, exchange) and mark.cohort:
            return mark.cohort
    return None


def _earlier(place: Place, diary: Collection[Mark]) -> tuple[frozenset[bytes], int]:
    """Participants of the last day's earlier sums from this adapter; how many are not known."""
    rounds = {
        mark.round
        for mark in diary
        if mark.left
        and mark.adapter == place.adapter
        and mark.round < place.round
        and mark.at > place.now - DAY_S
    }
    cohorts = [_certified(diary, number, 1) for number in rounds]
    known = frozenset(cohort for cohort in cohorts if cohort is not None)
    return known, cohorts.count(None)


def _refusal(section: str, reason: str) -> RemoteProtocolError:
    return RemoteProtocolError(COORDINATOR, section, reason)
