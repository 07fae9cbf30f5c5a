"""Patience: those who have not answered are waited for as long as the others took, and a half.

Only once enough have answered: a round that cannot do without somebody waits for its deadline.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

STILL_COMING = 0.2  # of a phase's deadline, since the last answer
SILENT_FACTOR, SILENT_LEAST_S = 10.0, 10.0  # times what the others took: not slow, but silent


@dataclass(frozen=True)
class Patience:
    """The measure: `factor` times what most of the others took, at least `least_s` seconds more.

    usual: volunteer → seconds that it is known to take, which it is given, too.
    """

    factor: float = 1.5
    least_s: float = 30.0  # a program that was killed starts again, and answers
    usual: Mapping[str, float] = field(default_factory=dict)


SESSION = Patience(3.0, 5.0)  # answers of seconds, over lines of any kind


@dataclass(frozen=True)
class Waiting:
    """The waiting of a phase. deadline_s: the longest; patience None: always that long.

    minimum, share: so many answers, and such a part of all, are enough to hurry the others.
    most_s: while answers keep coming, a phase goes on beyond its deadline, at most so long: many
    volunteers on a slow machine are not silent.
    """

    deadline_s: float = math.inf
    patience: Patience | None = None
    minimum: int = 1
    share: float = 0.5
    most_s: float = 0.0

    def until(self, asked: float, answered: Sequence[float], missing: Collection[str]) -> float:
        """The time until which `missing` are waited for.

        asked, answered: times on one clock, ascending.
        """
        longest, took = self._longest(asked, answered), self._took(asked, answered, missing)
        if self.patience is None or took is None:
            return longest
        usual = max((self.patience.usual.get(name, 0.0) for name in missing), default=0.0)
        allowed = max(self.patience.factor * max(took, usual), took + self.patience.least_s)
        return min(longest, asked + allowed)

    def silent_at(self, asked: float, answered: Sequence[float], missing: Collection[str]) -> float:
        """The time after which whoever has not answered is silent, and not slow."""
        longest, took = asked + self.deadline_s, self._took(asked, answered, missing)
        if self.patience is None or took is None:
            return longest
        return min(longest, asked + max(SILENT_FACTOR * took, SILENT_LEAST_S))

    def _longest(self, asked: float, answered: Sequence[float]) -> float:
        """The deadline, later if somebody has answered a moment ago."""
        deadline = asked + self.deadline_s
        if not answered or self.most_s <= self.deadline_s:
            return deadline
        going_on = answered[-1] + STILL_COMING * self.deadline_s
        return max(deadline, min(asked + self.most_s, going_on))

    def _took(
        self, asked: float, answered: Sequence[float], missing: Collection[str]
    ) -> float | None:
        """Seconds until enough had answered, None while they have not."""
        wanted = math.ceil(self.share * (len(answered) + len(missing)))
        enough = max(1, self.minimum, wanted)
        return answered[enough - 1] - asked if len(answered) >= enough else None
