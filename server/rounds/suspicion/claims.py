"""Losses that fit nothing: who claims what neither the evaluation split nor the others bear out.

A volunteer's loss of a candidate over its own of the best version is its claim. What claims are
held against is the change on the coordinator's own rows, or, where it has none, the median claim. A
claim misfits if it is further from that than

    max(2 · MOST_NOISE, 3 · |the change|, 3 · σ)      σ: of all claims, from their median deviation

since rows differ, a step that helps some by much helps others by little, and the split's best moves
with every gain where theirs waits until one is beyond the noise. Where more than half
do not fit (without a split: half) none is at fault: a candidate that harms what the split lacks
looks like that, and this is what volunteers are asked for. So a lie costs nothing once; whoever
misfits again within the last `REMEMBERED` sums is not heard until it fits: its rows may be the
reason, but by a loss that always says the same nothing can be judged.

    misfits(best, HeldOutLosses({"ada": 1.9, "ben": 2.8, "liar": 90.0}, 2.1))     # {"liar"}
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Collection, Iterable

from nomoat.server.rounds.acceptance import MOST_NOISE, HeldOutLosses, changes_of, deviation
from nomoat.server.rounds.records import RoundRecord

FAR = 3.0
FEWEST_SPREAD = 4  # claims; the deviation of fewer is the liar's, too
REMEMBERED = 8  # sums
MISFITS = 2  # of them


def misfits(best: HeldOutLosses, candidate: HeldOutLosses) -> frozenset[str]:
    """Those whose loss of a candidate fits neither the split nor the others."""
    claims = changes_of(best.volunteers, candidate.volunteers)
    own = changes_of({"": best.evaluation}, {"": candidate.evaluation}).get("")
    if not claims:
        return frozenset()
    reference = statistics.median(claims.values()) if own is None else own
    if math.isinf(reference):  # it has diverged: nobody is at fault for saying so
        return frozenset()
    spread = deviation(tuple(claims.values())) if len(claims) >= FEWEST_SPREAD else 0.0
    width = max(2 * MOST_NOISE, FAR * abs(reference), FAR * spread)
    out = frozenset(name for name, claim in claims.items() if not abs(claim - reference) <= width)
    most = len(claims) / 2 if own is not None else (len(claims) - 1) / 2
    return out if len(out) <= most else frozenset()


def unheard(records: Iterable[RoundRecord]) -> frozenset[str]:
    """Those whose losses do not count at present, from the rounds that have ended, in order."""
    found = counted(record.misfits for record in records if record.summed)
    return frozenset(name for name, times in found.items() if times >= MISFITS)


def counted(sums: Iterable[Collection[str]]) -> Counter[str]:
    """Volunteer → in how many of the last sums its loss fitted nothing. sums: who did not, each."""
    return Counter(name for one in [*sums][-REMEMBERED:] for name in one)


def in_words(times: int) -> str:
    """Say it of a volunteer; nothing of one whose losses fit."""
    if not times:
        return ""
    heard = "; not heard while that lasts" if times >= MISFITS else ""
    return f"its loss fitted nothing in {times} of the last {REMEMBERED} sums{heard}"
