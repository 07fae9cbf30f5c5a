"""Choosing who is asked in a round, and for how many sums: by what sums tell and members enter.

Of the sums from one adapter that came to nothing a member enters three that differ, whatever their
reason was (§19.4, cohort.py). Where everybody is always there, three lost sums are one cohort;
where members come and go they are three, nobody enters a fourth, and a search that began then would
find nobody until a day has passed. So when too few are left who enter more than one, a liar is
reckoned with at once: half of those there are asked at most, for one sum or several, and the others
have theirs left for the round after. A sum without the liar makes a version, from which all of them
enter three again.

    asked_of(history, adapter, frozenset(online), federation, 1, seed).cohort
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nomoat.server.rounds.cohort import REPEATS, as_before, full, sums_from
from nomoat.server.rounds.federation import Federation
from nomoat.server.rounds.records import RoundRecord
from nomoat.server.rounds.suspicion.cohorts import suspicion_of

HALF = 0.5


@dataclass(frozen=True)
class RoundPeople:
    """The people of a round. cohort: who trains. evaluators: who measures what comes of it.

    sums: masked ones, over disjoint parts of the cohort, at most. suspected: of spoiling sums, by
    what probability.
    """

    cohort: tuple[str, ...]
    evaluators: tuple[str, ...]
    sums: int
    suspected: Mapping[str, float]


def asked_of(
    history: Sequence[RoundRecord],
    adapter: str,
    online: frozenset[str],
    federation: Federation,
    most_sums: int,
    seed: bytes,
) -> RoundPeople:
    """Return who of those online is asked to train from `adapter` (hex digest).

    history: rounds that have ended, in order. most_sums: that a round may have. seed: 32 bytes.
    """
    least = federation.min_reports
    failed = sums_from(history, adapter) if federation.secure else []
    sparing = bool(failed) and len(online - full(failed, REPEATS - 1)) < least
    so_far = suspicion_of(history, sparing)
    there = online - so_far.set_aside
    able, again = there - full(failed), None
    if len(able) < least:
        able, again = there, as_before(failed, there, least)
    fraction = min(federation.fraction, HALF) if sparing else federation.fraction
    sums = so_far.sums(math.ceil(fraction * len(able)), least, most_sums)
    drawn = so_far.cohort(able, fraction, least, seed, sums)
    return RoundPeople(again or drawn, tuple(sorted(there)), sums, so_far.probabilities)
