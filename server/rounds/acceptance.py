"""Whether a new adapter replaces the old one: the community's adapter only gets better."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Acceptance:
    """Accepted or not, and why in a few words."""

    accepted: bool
    reason: str


def judge(
    previous: Mapping[str, float],
    candidate: Mapping[str, float],
    tolerance: float,
    evaluation: tuple[float | None, float | None] = (None, None),
) -> Acceptance:
    """Accept unless the median volunteer's held-out loss rose by more than `tolerance`.

    previous, candidate: volunteer → mean held-out loss (nats per token) of the adapter that stands
    and of the one proposed. Only volunteers in both count; with none in common there is no evidence
    against the candidate, but one that nobody measured does not replace one that was. The median
    of the relative changes, not the mean of the losses: fewer than half of the evaluators lying
    can neither block a good adapter nor carry a bad one.

    evaluation: the same two losses on the community's own evaluation split, None where not
    measured. A rise there counts against the candidate whatever volunteers say.
    """
    before, after = evaluation
    measured = [*candidate.values(), *(() if after is None else (after,))]
    if not all(math.isfinite(loss) for loss in measured):
        return Acceptance(False, "held-out loss is not finite")
    if (previous or before is not None) and not measured:
        return Acceptance(False, "nobody measured the new adapter")
    rise = None if before is None or after is None else _change(before, after)
    if rise is not None and rise > tolerance:
        reason = f"loss on the evaluation split rose by {rise:.1%} (at most {tolerance:.0%})"
        return Acceptance(False, reason)
    unopposed = f"loss on the evaluation split changed by {rise or 0.0:+.1%}"
    return _by_volunteers(previous, candidate, tolerance) or Acceptance(
        True, "nothing to compare with" if rise is None else unopposed
    )


def _by_volunteers(
    previous: Mapping[str, float], candidate: Mapping[str, float], tolerance: float
) -> Acceptance | None:
    """The verdict of the volunteers who measured both; None if there are none."""
    both = previous.keys() & candidate.keys()
    if not both:
        return None
    change = statistics.median(_change(previous[v], candidate[v]) for v in both)
    if change > tolerance:
        return Acceptance(False, f"held-out loss rose by {change:.1%} (at most {tolerance:.0%})")
    return Acceptance(True, f"held-out loss changed by {change:+.1%}")


def _change(before: float, after: float) -> float:
    """Relative change of a loss."""
    return after / max(before, 1e-9) - 1
