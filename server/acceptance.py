"""Whether a new adapter replaces the old one: the community's adapter only gets better."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Verdict:
    """Accepted or not, and why in a few words."""

    accepted: bool
    reason: str


def judge(
    previous: Mapping[str, float], candidate: Mapping[str, float], tolerance: float
) -> Verdict:
    """Accept unless the median volunteer's held-out loss rose by more than `tolerance`.

    previous, candidate: volunteer → mean held-out loss (nats per token) of the adapter that stands
    and of the one proposed. Only volunteers in both count; with none in common there is no evidence
    against the candidate, but one that nobody measured does not replace one that was. The median
    of the relative changes, not the mean of the losses: fewer than half of the evaluators lying
    can neither block a good adapter nor carry a bad one.
    """
    if not all(math.isfinite(loss) for loss in candidate.values()):
        return Verdict(False, "held-out loss is not finite")
    if previous and not candidate:
        return Verdict(False, "nobody measured the new adapter")
    both = sorted(previous.keys() & candidate.keys())
    if not both:
        return Verdict(True, "nothing to compare with")
    change = statistics.median(candidate[v] / max(previous[v], 1e-9) - 1 for v in both)
    if change > tolerance:
        return Verdict(False, f"held-out loss rose by {change:.1%} (at most {tolerance:.0%})")
    return Verdict(True, f"held-out loss changed by {change:+.1%}")
