"""Selecting who is asked to train in a round: a seeded draw, the same for the same inputs.

Of several masked sums from one adapter, thrown away or rejected one after the other, a volunteer
lets the first be followed by REPEATS that differ in their participants, and enters then only those
it has been in (§19.4). Asked in another cohort it trains for nothing. So it is left out of those
(`full`); where too few are left, an earlier cohort is asked again (`as_before`), in all but each
FOURTH of these rounds: owners may allow more, days pass. It hardly comes to that, since the last
cohorts that members enter are smaller, or several (suspicion/asking.py).
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from collections.abc import Set as AbstractSet

import numpy as np

from nomoat.aggregation.sums.exact_sum import MAX_TERMS
from nomoat.server.rounds.records import RoundRecord

REPEATS = 2  # the default of an owner's `repeats`
FOURTH = 4


def round_seed(seed: bytes, label: str, round_number: int) -> bytes:
    """32 bytes for one purpose in one round, so that no two draws share a stream."""
    return hashlib.sha256(seed + label.encode() + round_number.to_bytes(8, "big")).digest()


def seed_of(number: int, label: str) -> bytes:
    """32 bytes for one purpose, from the number a person chose: the same in a simulation."""
    return hashlib.sha256(f"nomoat {label} {number}".encode()).digest()


def generator(seed: bytes) -> np.random.Generator:
    """A numpy generator from a 32-byte seed."""
    return np.random.default_rng(np.frombuffer(seed, "<u4"))


def select(
    available: Collection[str], fraction: float, minimum: int, seed: bytes
) -> tuple[str, ...]:
    """⌈fraction · n⌉ of the n available volunteers, at least `minimum`, sorted by name.

    Never more than one exact sum can hold.
    """
    names = sorted(available)
    wanted = min(len(names), MAX_TERMS, max(minimum, math.ceil(fraction * len(names) - 1e-9)))
    chosen = generator(seed).permutation(len(names))[:wanted]
    return tuple(sorted(names[i] for i in chosen))


def sums_from(records: Iterable[RoundRecord], adapter: str) -> list[frozenset[str]]:
    """Participants of each sum from this adapter (hex digest) that came to nothing, in order.

    Of a round that had several the good ones count as one: nobody was in two of them.
    """
    nothing = [each for each in records if not each.committed and each.adapter == adapter]
    sums = [[*each.bad_sums, frozenset(each.contributors)] for each in nothing]
    return [one for several in sums for one in several if one]


def full(sums: Iterable[frozenset[str]], repeats: int = REPEATS) -> frozenset[str]:
    """Those who enter no further cohort after these sums from one adapter."""
    times = Counter(name for members in set(sums) for name in members)
    return frozenset(name for name, count in times.items() if count > repeats)


def as_before(
    sums: Sequence[frozenset[str]], available: AbstractSet[str], minimum: int
) -> tuple[str, ...] | None:
    """The latest of these cohorts that is all there, of `minimum` or more; None: ask anybody."""
    if len(sums) % FOURTH == 0:
        return None
    there = (each for each in reversed(sums) if minimum <= len(each) and each <= available)
    return next((tuple(sorted(each)) for each in there), None)
