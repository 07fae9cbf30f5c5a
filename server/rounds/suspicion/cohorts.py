"""Choosing a cohort in the light of the sums before: smaller and at random while sums fail.

Sums that have to be thrown away more often than honest ones are, three in a row or four of sixteen,
are hardly chance. As long as everybody is in every sum, nothing shows through whom; so from then on
half of those who are there are asked at most, and never fewer than a sum must have: of many draws
the one that is as likely to fail as not, as far as is known, since its outcome tells most. A cohort
without the liar succeeds and its round counts; who is beyond doubt is asked no more (posterior.py),
until its owner and the community's have talked; when hardly anybody else can be the cause any more
everyone is asked again.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from nomoat.server.rounds.cohort import round_seed, select
from nomoat.server.rounds.records import RoundRecord
from nomoat.server.rounds.suspicion.posterior import BY_ITSELF, RATES, Sum, named, posterior

ALARM = 6.0
FEW = 0.25  # liars expected among those who are asked, for whom nobody searches
PARTS = (1 / 2, 1 / 3, 1 / 4, 0.0)
DRAWS = 64
REMEMBERED = 60  # rounds with sums
MOST_SPLIT = 12  # of them with several, since many small sums tell of single volunteers, too


@dataclass(frozen=True)
class Suspicion:
    """Verdict of the sums so far. probabilities: of all who were in one, empty while all is well.

    beforehand: what they would be without any sum. telling: False once a round that was to have
    several sums was thrown away with all of them, as it is where nothing shows in sums, and once
    there were as many such rounds as may be.
    """

    probabilities: dict[str, float] = field(default_factory=dict)
    beforehand: float = 0.0
    telling: bool = True

    @property
    def set_aside(self) -> frozenset[str]:
        """Those who are not asked."""
        return named(self.probabilities)

    @property
    def suspects(self) -> dict[str, float]:
        """Those who more likely spoil sums than not, to be told to people."""
        return suspects(self.probabilities)

    @property
    def searching(self) -> bool:
        """True while there may be liars among those who are still asked."""
        asked = self.probabilities.keys() - self.set_aside
        return sum(self.probabilities[name] for name in asked) > FEW

    def cohort(
        self, online: Collection[str], fraction: float, minimum: int, seed: bytes, sums: int = 1
    ) -> tuple[str, ...]:
        """Return who is asked to train, as select() has it, of those who are not set aside.

        sums: how many the round has; where there are several, they tell more than who is in none.
        """
        asked = [name for name in online if name not in self.set_aside]
        if not self.searching or sums > 1:
            return select(asked, fraction, minimum, seed)
        draws = [
            select(
                asked, min(fraction, PARTS[i % len(PARTS)]), minimum, round_seed(seed, "draw", i)
            )
            for i in range(DRAWS)
        ]
        return min(draws, key=lambda drawn: abs(self._failing(drawn) - 0.5))

    def sums(self, asked: int, minimum: int, most: int) -> int:
        """Return how many sums a round of so many volunteers has: one while all is well."""
        if not (self.searching and self.telling):
            return 1
        return max(1, min(most, asked // max(1, minimum)))

    def _failing(self, cohort: Collection[str]) -> float:
        """The probability that a sum of these fails, taking suspects one by one."""
        return 1 - math.prod(1 - self.probabilities.get(name, self.beforehand) for name in cohort)


def suspects(probabilities: Mapping[str, float]) -> dict[str, float]:
    """Those who more likely spoil sums than not."""
    return {name: round(p, 6) for name, p in probabilities.items() if p > 1 / 2}


def suspicion_of(records: Iterable[RoundRecord], sparing: bool = False) -> Suspicion:
    """Return what rounds that have ended, in order, say of those in their sums.

    sparing: a liar is reckoned with before that is beyond chance (asking.py).
    """
    summed = [record for record in records if record.summed][-REMEMBERED:]
    if not summed or not (sparing or _suspicious(summed)):
        return Suspicion()
    sums = [one for record in summed for one in sums_of(record)]
    names = sorted(frozenset().union(*(one.members for one in sums)))
    split = [record for record in summed if record.sums > 1]
    told = not split or split[-1].committed or bool(split[-1].left_out)
    telling = told and len(split) < MOST_SPLIT
    return Suspicion(posterior(names, sums), posterior(names, ())[names[0]], telling)


def sums_of(record: RoundRecord) -> list[Sum]:
    """Return a round's sums as evidence: those that were left out, and the others as one.

    That the others are good says of any set of liars what each of them being good does, but for a
    factor that is the same for all sets: (1 − a)ᵏ is a product over volunteers.
    """
    found = [Sum(members, failed=True, large=True) for members in record.bad_sums]
    if record.contributors:
        found.append(Sum(frozenset(record.contributors), not record.committed))
    return found


def _suspicious(records: Iterable[RoundRecord]) -> bool:
    """Tell whether so many sums failed, now or before, that it is hardly chance.

    Page's test (1954) of a liar that acts with the least of RATES against none: the sum of log
    likelihood ratios, never below 0, comes to ALARM. Where nobody lies that is once in exp(ALARM)
    sums at most (Lorden 1971), as far as honest ones fail with BY_ITSELF. A round that a sum had to
    be left out of is one that failed: honest ones are as large as that ten times less often.
    """
    fails = 1 - (1 - BY_ITSELF) * (1 - RATES[-1])
    reached = 0.0
    for record in records:
        well = record.committed and not record.left_out
        ratio = (1 - fails) / (1 - BY_ITSELF) if well else fails / BY_ITSELF
        reached = max(0.0, reached + math.log(ratio))
        if reached >= ALARM:
            return True
    return False
