"""Splitting a cohort into several sums at random, so that a bad one names fewer.

parts_of(("ada", …24 names), most=3, least=8, seed=fresh)     # three parts of eight
"""

from __future__ import annotations

from collections.abc import Collection

from nomoat.server.rounds.cohort import generator


def parts_of(
    cohort: Collection[str], most: int, least: int, seed: bytes
) -> tuple[tuple[str, ...], ...]:
    """At most `most` disjoint parts of at least `least` each, together everybody, each sorted.

    Their sizes differ by one at most. A cohort that is too small for two is one part. seed: 32
    bytes that no volunteer can foresee: it is drawn after who takes part is known.
    """
    names = sorted(cohort)
    count = max(1, min(most, len(names) // max(1, least)))
    order = [names[place] for place in generator(seed).permutation(len(names))]
    return tuple(tuple(sorted(order[start::count])) for start in range(count))
