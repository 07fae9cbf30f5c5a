"""Regression: versions that were accepted one by one, and are together worse than an older one.

Each was within what its gate allows. But when the last `after` of them all measured worse than the
best by more than `rise`, it is no chance of one measurement, and the rule goes back to the best:

    rise of a version = its loss on the coordinator's own rows over the best's, − 1;
                        where there are none, the median over the volunteers that measured both

What is compared begins anew at a person's word: a version that somebody released, went back to or
restored is where it starts. A held or pruned version is never gone back to. The same version is
gone back to again only after twice as many as the last time: a community that cannot get better
looks for longer and longer before it does, and never swings.

    regressed(measured, RollbackRule(after=3, rise=0.01))      # Regression(to=4, …), or None
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from nomoat.server.rounds.acceptance import HeldOutLosses, changes_of

MOST_DOUBLINGS = 10


@dataclass(frozen=True, slots=True)
class RollbackRule:
    """after: versions in a row that are worse, 0 for never. rise: relative, of a loss."""

    after: int
    rise: float


@dataclass(frozen=True, slots=True)
class MeasuredVersion:
    """A version as the rule sees it. adapter: its digest. by_rule: it is a rollback of this rule.

    by_person: somebody has said that it is good. barred: it is held, or its file is gone.
    """

    number: int
    adapter: bytes
    losses: HeldOutLosses
    by_rule: bool = False
    by_person: bool = False
    barred: bool = False


@dataclass(frozen=True, slots=True)
class Regression:
    """A finding: go back to version `to`. worse: the versions after it. rise: the newest's."""

    to: int
    worse: tuple[int, ...]
    rise: float


def regressed(versions: Sequence[MeasuredVersion], rule: RollbackRule) -> Regression | None:
    """Judge all versions so far, oldest first."""
    begun = max((i for i, one in enumerate(versions) if one.by_person), default=0)
    best, later = None, list[MeasuredVersion]()
    for version in versions[begun:]:
        # The same adapter again is the best again: what came before it is past.
        if best is None or _rise(best, version) <= 0 or version.adapter == best.adapter:
            if not version.barred:
                best, later = version, []
        else:
            later.append(version)
    if not rule.after or best is None:
        return None
    back = sum(one.by_rule and one.adapter == best.adapter for one in versions)
    needed = rule.after << min(back, MOST_DOUBLINGS)
    last = later[-needed:]
    if len(last) < needed or any(_rise(best, version) <= rule.rise for version in last):
        return None
    return Regression(best.number, tuple(one.number for one in later), _rise(best, last[-1]))


def _rise(best: MeasuredVersion, version: MeasuredVersion) -> float:
    """The relative rise of a version's loss; 0 where nothing can be compared."""
    before, after = best.losses, version.losses
    own = changes_of({"": before.evaluation}, {"": after.evaluation})
    changes = own or changes_of(before.volunteers, after.volunteers)
    return statistics.median(changes.values()) if changes else 0.0
