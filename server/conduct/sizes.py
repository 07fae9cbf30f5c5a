"""Sizes of updates that pass, over rounds: what is a little too large shows in a few of them.

One sketch tells a norm to 9 %, so a single round can only name what is far beyond the bound (1.5
times, audit/judgement.py). 64 · (norm/bound)² of each round is at most χ² with 64 degrees of
freedom for whoever keeps to the bound, and independent from round to round, since R is; the sum of
w rounds is χ² with 64 · w. Whoever's last w rounds come to more than chance explains is above it:

    P(χ²[k] > x) = e^(−x/2) · Σ_{j < k/2} (x/2)^j / j!            k even: exact

That is statistics, not proof: it holds a volunteer, names its odds, and never bans.

    above([1.4, 1.35, 1.43, 1.5])     # Excess(rounds=4, times=1.42)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from nomoat.aggregation.secagg.audit.judgement import TOLERANCE
from nomoat.aggregation.secagg.audit.sketch import WORDS

WINDOWS = (2, 3, 4, 8, 16)  # rounds
CHANCE = 1e-8  # that somebody at the bound is named by one window in one round
REMEMBERED = max(WINDOWS)
MEETING = 1.12  # times as likely, at most, where values of an update meet in a bucket (§20.6)


@dataclass(frozen=True, slots=True)
class Excess:
    """An excess over several rounds. times: the bound, as the root of the mean square."""

    rounds: int
    times: float

    def __str__(self) -> str:
        return (
            f"its updates of {self.rounds} rounds are together {self.times:.2f} times the bound "
            f"(1 in {1 / CHANCE:.0e} of those at the bound)".replace("e+0", "e")
        )


def above(sizes: Sequence[float]) -> Excess | None:
    """Judge the sizes (norm over bound) of audited updates, the last one last; None: explained."""
    for rounds in WINDOWS:
        if len(sizes) < rounds:
            return None
        energy = WORDS * sum(size * size for size in sizes[-rounds:])
        if tail(energy, WORDS * rounds) < CHANCE:
            return Excess(rounds, math.sqrt(energy / (WORDS * rounds)))
    return None


def false_accusations() -> float:
    """Bound the chance that a volunteer at the bound is named in a round, by any of the rules."""
    return MEETING * (tail(WORDS * TOLERANCE**2, WORDS) + len(WINDOWS) * CHANCE)


def tail(x: float, freedom: int) -> float:
    """P(χ² > x) for an even number of degrees of freedom."""
    half = x / 2
    if half <= 0:
        return 1.0
    logs = [j * math.log(half) - math.lgamma(j + 1) for j in range(freedom // 2)]
    most = max(logs)
    return min(1.0, math.exp(most - half) * sum(math.exp(each - most) for each in logs))
