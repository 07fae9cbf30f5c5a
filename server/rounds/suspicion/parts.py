"""Splitting a cohort into several sums at random, so that a bad one names fewer.

parts_of(("ada", …24 names), most=3, least=8, seed=fresh)     # three parts of eight
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType

from nomoat.server.rounds.cohort import generator

NOBODY: Mapping[str, float] = MappingProxyType({})


def parts_of(
    cohort: Collection[str],
    most: int,
    least: int,
    seed: bytes,
    suspected: Mapping[str, float] = NOBODY,
) -> tuple[tuple[str, ...], ...]:
    """At most `most` disjoint parts of at least `least` each, together everybody, each sorted.

    Their sizes differ by one at most. A cohort that is too small for two is one part. seed: 32
    bytes that no volunteer can foresee: it is drawn after who takes part is known. suspected: name
    → probability; those suspected most are dealt out first, so that they are in different sums.
    """
    names = sorted(cohort)
    count = max(1, min(most, len(names) // max(1, least)))
    rng = generator(seed)
    drawn = [names[place] for place in rng.permutation(len(names))]
    order = sorted(drawn, key=lambda name: -round(suspected.get(name, 0.0), 3))  # ties stay drawn
    parts: list[list[str]] = [[] for _ in range(count)]
    for start in range(0, len(order), count):
        some = order[start : start + count]
        for name, place in zip(some, rng.permutation(count).tolist(), strict=False):
            parts[place].append(name)
    return tuple(tuple(sorted(part)) for part in parts)
