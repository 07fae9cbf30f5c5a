"""A plan of noise for a community: whether an adapter can still learn under it, and what would fit.

The mean of n updates within a bound C, d values long, has noise of norm z·√d/√(h·n) times C, since
n volunteers add shares that h are enough for. Measured on the pocket federation (with h = n): up to
.6 an adapter keeps 80 to 90 % of what it gains without; beyond that it varies (.74: two thirds
in one series, .15 in another), above 1.4 it gets worse (docs/experiments.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from nomoat.aggregation.errors import UsageError
from nomoat.aggregation.privacy.accounting import noise_multiplier

MOST_NOISE = 0.9  # z·√d/√(h·n)
LEAST_HONEST = 300  # volunteers, whose shares the noise of a sum is made of


@dataclass(frozen=True, slots=True)
class Budget:
    """A goal: each volunteer is in `participations` sums at most, which come to (ε, δ)."""

    epsilon: float
    delta: float
    participations: int

    @property
    def noise(self) -> float:
        """z, which it needs; UsageError if there is none."""
        return noise_multiplier(self.epsilon, self.delta, self.participations)


def check(budget: Budget, values: int, rank: int, participants: int, honest: int) -> float:
    """Return z, if an adapter of `values` at this rank can learn under it; UsageError names a fit.

    participants: the fewest of a sum. honest: those of them that do not collude, at least.
    """
    noise = budget.noise
    if honest < LEAST_HONEST:
        raise UsageError(
            f"privacy.epsilon: a sum of {participants} has {honest} honest volunteers for sure; "
            f"below {LEAST_HONEST} noise leaves an adapter nothing to learn, and none is claimed"
        )
    share = noise * math.sqrt(values) / math.sqrt(honest * participants)
    if share <= MOST_NOISE:
        return noise
    fitting = int(rank * (MOST_NOISE / share) ** 2)
    cohort = math.ceil(participants * share / MOST_NOISE)
    ranks = f"a rank of {fitting} or less, or " if fitting else ""
    raise UsageError(
        f"privacy.epsilon: noise would be {share:.2g} of the bound ({MOST_NOISE} at most): it "
        f"takes {ranks}sums of {cohort} volunteers (min_reports)"
    )
