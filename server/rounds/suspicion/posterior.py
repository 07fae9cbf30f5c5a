"""The probability that a volunteer spoils the sums it is in, from which sums failed: exact Bayes.

Under masks a bad sum does not say whose update was bad; but who is in the bad sums and never in the
good ones can be told from those who were there by chance. The hypotheses are all sets of at most m
volunteers, who spoil a sum they are in with one of a few rates:

    P(sum fails | k of the set in it) = 1 − (1 − e)(1 − a)ᵏ

e: sums that fail by themselves, far fewer where their size shows it (`large`); a: how often a liar
acts. Everyone is a liar with probability π beforehand. m is the most for which all sets can be
counted. This is group testing by Bayes' rule, with nothing left out but sets of more than m. π is
such that a few liars are expected at most.

By the rule a volunteer held with posterior p is innocent with probability 1 − p: of those named at
`NAMED` at most one in a thousand, as far as rates and π are right. For one who is honest its odds,
over those beforehand, are a martingale of mean 1, since they are P(sums | it lies) / P(sums | it
does not); so it is ever named with a probability of `named_by_chance` at most (Ville 1939).

    posterior(("ada", "ben", "cy"), [Sum(frozenset({"ada", "ben"}), failed=True), …])["ada"]
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, combinations

import numpy as np

PRIOR = 0.05  # π in a small community
EXPECTED = 1.5  # liars, at most
BY_ITSELF = 0.02  # e
LARGE = 0.002  # e, where a sum is far larger than the others of its round
RATES = (0.95, 0.6, 0.3)  # a, each as likely
NAMED = 0.999  # from here on a volunteer is set aside
MOST_SETS = 15_000


@dataclass(frozen=True, slots=True)
class Sum:
    """One sum that was made: who is in it, and whether it had to be thrown away.

    large: for its size, beside other sums of its round.
    """

    members: frozenset[str]
    failed: bool
    large: bool = False

    @property
    def by_itself(self) -> float:
        """The probability that it fails where nobody lies."""
        return LARGE if self.large else BY_ITSELF


def posterior(names: Sequence[str], sums: Iterable[Sum]) -> dict[str, float]:
    """Volunteer → probability that it spoils sums. Members that are not in `names` are passed over.

    Without sums that is about π.
    """
    sets = _sets(len(names))
    size = sets.sum(axis=1)
    prior = _prior(len(names))
    log_prior = size * math.log(prior) + (len(names) - size) * math.log1p(-prior)
    log_weight = np.repeat(log_prior[None, :], len(RATES), axis=0)  # (rate, set)
    place = {name: index for index, name in enumerate(names)}
    for one in sums:
        inside = np.zeros(len(names), bool)
        inside[[place[name] for name in one.members if name in place]] = True
        caught = sets[:, inside].sum(axis=1)
        for index, rate in enumerate(RATES):
            log_good = math.log1p(-one.by_itself) + caught * math.log1p(-rate)
            log_weight[index] += np.log(-np.expm1(log_good)) if one.failed else log_good
    weight = np.exp(log_weight - log_weight.max()).sum(axis=0)
    shares = (weight @ sets) / weight.sum()
    return dict(zip(names, shares.tolist(), strict=True))


def named(found: Mapping[str, float]) -> frozenset[str]:
    """Those whose posterior is beyond doubt."""
    return frozenset(name for name, probability in found.items() if probability >= NAMED)


def named_by_chance(count: int) -> float:
    """The probability, at most, that one honest volunteer of `count` is ever named."""
    prior = _prior(count)
    return prior / (1 - prior) * (1 - NAMED) / NAMED


def _prior(count: int) -> float:
    """π among so many."""
    return min(PRIOR, EXPECTED / max(1, count))


def most_liars(count: int) -> int:
    """m: the largest sets of `count` volunteers that are among the hypotheses."""
    total, size = 1, 0
    while size < count and (total := total + math.comb(count, size + 1)) <= MOST_SETS:
        size += 1
    return size


@lru_cache(maxsize=4)
def _sets(count: int) -> np.ndarray:
    """All sets of at most m of `count`, (sets, count) bool, empty one first; read only."""
    most = most_liars(count)
    chosen = list(chain.from_iterable(combinations(range(count), k) for k in range(most + 1)))
    table = np.zeros((len(chosen), count), bool)
    rows = np.repeat(np.arange(len(chosen)), [len(each) for each in chosen])
    table[rows, list(chain.from_iterable(chosen))] = True
    table.flags.writeable = False
    return table
