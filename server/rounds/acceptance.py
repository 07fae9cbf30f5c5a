"""Deciding whether a new adapter replaces the old one: the community's adapter only gets better.

A candidate is compared with the best version accepted so far, not with the one before it: ten
steps down, each too small to tell from noise, are together a step that is not. Each evaluator
measures every version on the same held-out rows, so its loss of the candidate over its loss of the
best version is a paired comparison, in which what is easy or hard about its rows cancels. The
change is the median over the evaluators common to both: fewer than half of them lying can neither
block a good adapter nor carry a bad one. So is its noise, which the evaluators' disagreement shows:

    σ = 1.4826 · cₙ · median |dᵥ − median d|         a robust standard deviation of the changes dᵥ
    noise = t(0.95, n − 1) · 1.2533 · σ / √n          1.2533 σ/√n: the standard error of a median

(Rousseeuw & Croux 1993 for σ; cₙ is Croux & Rousseeuw's 1992 correction for few values). A rise
within the noise is accepted, as no change at all would be refused half of the time otherwise. But
what counts as best moves only when a candidate is better by more than the noise: the luckiest of
many equal measurements must not become the standard that honest ones are then held to.

    best = HeldOutLosses({"ada": 2.0, "ben": 3.0, "cy": 2.5})
    verdict = judge(best, HeldOutLosses({"ada": 1.9, "ben": 2.8, "cy": 2.4}))
    verdict.accepted, verdict.best      # True, the candidate's losses: what the next is held to
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

LEAST_NOISE = 1e-3  # the same adapter, measured on another machine or with another batch size
MOST_NOISE = 0.05  # however much evaluators disagree; also where one alone shows no noise
MAD_TO_SIGMA = 1.4826  # of a normal distribution
SIGMA_TO_MEDIAN = 1.2533  # √(π/2): the standard error of a median over that of a mean
FEW = (1.196, 1.495, 1.363, 1.206, 1.200, 1.140, 1.129, 1.107)  # cₙ for n = 2 to 9
T_95 = (6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833, 1.812)  # for n − 1 = 1 to 10


@dataclass(frozen=True)
class HeldOutLosses:
    """One version's losses, nats per trained token: of volunteers, and on the community's rows.

    inf: somebody says that there is none, because the version has diverged.
    """

    volunteers: Mapping[str, float] = field(default_factory=dict)
    evaluation: float | None = None


@dataclass(frozen=True)
class Acceptance:
    """Accepted or not, why in a few words, and the losses the next candidate is held to."""

    accepted: bool
    reason: str
    best: HeldOutLosses


def judge(
    best: HeldOutLosses,
    candidate: HeldOutLosses,
    tolerance: float | None = None,
    unheard: Collection[str] = (),
) -> Acceptance:
    """Accept a candidate unless it is worse than the best version by more than the noise.

    tolerance: the rise that is accepted instead, relative. Only volunteers in both count, and of
    those only who is not `unheard` (suspicion/claims.py), as long as anybody else is there; with
    none in common there is no evidence against the candidate, but one that nobody measured does not
    replace one that was. A rise on the community's own rows counts against the candidate whatever
    volunteers say; one measurement shows no noise, so MOST_NOISE is its.
    """
    said = candidate.volunteers
    heard = {name: loss for name, loss in said.items() if name not in unheard}
    verdict = _judge(best, replace(candidate, volunteers=heard or said), tolerance)
    if not verdict.accepted:
        return verdict
    # What others said is kept, for the day on which they are heard again.
    kept = {**_finite(said), **verdict.best.volunteers}
    return replace(verdict, best=replace(verdict.best, volunteers=kept))


def _judge(best: HeldOutLosses, candidate: HeldOutLosses, tolerance: float | None) -> Acceptance:
    reason = _unmeasured(best, candidate)
    if reason is not None:
        return Acceptance(False, reason, best)
    before, after = best.evaluation, candidate.evaluation
    own = None if before is None or after is None else _change(before, after)
    most = MOST_NOISE if tolerance is None else tolerance
    if own is not None and own > most:
        return Acceptance(False, _rise("loss on the evaluation split", own, most), best)
    changes = list(changes_of(best.volunteers, candidate.volunteers).values())
    if not changes:
        unopposed = f"loss on the evaluation split changed by {own or 0.0:+.1%}"
        reason = "nothing to compare with" if own is None else unopposed
        return Acceptance(True, reason, _best(best, candidate, better=False))
    change, noise = statistics.median(changes), noise_of(changes)
    allowed = noise if tolerance is None else tolerance
    if change > allowed:
        return Acceptance(False, _rise("held-out loss", change, allowed), best)
    following = _best(best, candidate, better=change < -noise)
    return Acceptance(True, f"held-out loss changed by {change:+.1%}", following)


def noise_of(changes: Sequence[float]) -> float:
    """The rise of the median of `changes` that their spread explains, 19 times in 20."""
    n = len(changes)
    if n < 2:
        return MOST_NOISE
    quantile = T_95[n - 2] if n < 12 else 1.645 + 1.6 / (n - 1)
    noise = quantile * SIGMA_TO_MEDIAN * deviation(changes) / math.sqrt(n)
    return min(MOST_NOISE, max(LEAST_NOISE, noise))


def deviation(changes: Sequence[float]) -> float:
    """σ of two changes or more, as robust as their median is."""
    n, middle = len(changes), statistics.median(changes)
    if not math.isfinite(middle):
        return math.inf
    spread = statistics.median(abs(change - middle) for change in changes)
    return MAD_TO_SIGMA * (FEW[n - 2] if n < 10 else n / (n - 0.8)) * spread


def changes_of(
    before: Mapping[str, float | None], after: Mapping[str, float | None]
) -> dict[str, float]:
    """The relative change of each loss that is in both; inf where there is none any more."""
    return {
        name: _change(was, now)
        for name in sorted(before.keys() & after.keys())
        if (was := before[name]) is not None and (now := after[name]) is not None
    }


def _unmeasured(best: HeldOutLosses, candidate: HeldOutLosses) -> str | None:
    """The reason for which a candidate cannot be judged at all, if there is one."""
    own = candidate.evaluation
    measured = [*candidate.volunteers.values(), *(() if own is None else (own,))]
    diverged = len(candidate.volunteers) - len(_finite(candidate.volunteers))
    if (own is not None and not math.isfinite(own)) or 2 * diverged > len(candidate.volunteers):
        return "held-out loss is not finite"
    if (best.volunteers or best.evaluation is not None) and not measured:
        return "nobody measured the new adapter"
    return None


def _best(best: HeldOutLosses, candidate: HeldOutLosses, *, better: bool) -> HeldOutLosses:
    """The losses to hold the next candidate to, once this one is accepted.

    Not clearly better, it adds those it alone was measured by: they have nothing older to compare
    with, and it is as good as the best as far as anybody can tell.
    """
    measured = _finite(candidate.volunteers)
    volunteers = measured if better else {**measured, **best.volunteers}
    known = [loss for loss in (best.evaluation, candidate.evaluation) if loss is not None]
    return HeldOutLosses(volunteers, min(known, default=None))


def _finite(losses: Mapping[str, float]) -> dict[str, float]:
    return {name: loss for name, loss in losses.items() if math.isfinite(loss)}


def _rise(of: str, change: float, allowed: float) -> str:
    if math.isinf(change):
        return f"{of} is not finite"
    return f"{of} rose by {change:.1%} over the best version (at most {allowed:.1%})"


def _change(before: float, after: float) -> float:
    """Relative change of a loss."""
    return after / max(before, 1e-9) - 1 if math.isfinite(after) else math.inf
