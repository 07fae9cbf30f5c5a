"""Group testing by Bayes: who is in bad sums and never in good ones is found, nobody else."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from nomoat.server.rounds.suspicion.posterior import (
    BY_ITSELF,
    NAMED,
    PRIOR,
    RATES,
    Sum,
    most_liars,
    named,
    posterior,
)

NAMES = ("ada", "ben", "cy", "dee")


def by_hand(sums: list[Sum]) -> dict[str, float]:
    """The same by enumerating every set of up to four and every rate, textbook order."""
    weights = {}
    for liars in itertools.chain.from_iterable(
        itertools.combinations(NAMES, k) for k in range(len(NAMES) + 1)
    ):
        prior = PRIOR ** len(liars) * (1 - PRIOR) ** (len(NAMES) - len(liars))
        for rate in RATES:
            likelihood = 1.0
            for one in sums:
                good = (1 - BY_ITSELF) * (1 - rate) ** len(set(liars) & one.members)
                likelihood *= 1 - good if one.failed else good
            weights[liars, rate] = prior * likelihood
    total = sum(weights.values())
    return {n: sum(w for (s, _), w in weights.items() if n in s) / total for n in NAMES}


@pytest.mark.parametrize("seed", range(5))
def test_the_posterior_is_that_of_bayes_rule_written_out(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sums = [
        Sum(frozenset(n for n in NAMES if rng.random() < 0.6), bool(rng.random() < 0.5))
        for _ in range(7)
    ]
    found = posterior(NAMES, sums)
    for name, expected in by_hand(sums).items():
        assert found[name] == pytest.approx(expected, rel=1e-9)


def test_without_sums_everybody_is_as_suspect_as_beforehand() -> None:
    assert posterior(NAMES, []) == pytest.approx(dict.fromkeys(NAMES, PRIOR), rel=1e-6)


def test_sums_of_everybody_tell_nobody_apart() -> None:
    found = posterior(NAMES, [Sum(frozenset(NAMES), True)] * 10)
    assert len({round(p, 9) for p in found.values()}) == 1
    assert not named(found)


def test_who_is_in_every_bad_sum_and_in_no_good_one_is_named_and_nobody_else() -> None:
    rest = [set(pair) for pair in itertools.combinations(NAMES[1:], 2)]
    bad = [Sum(frozenset({"ada", *pair}), True) for pair in rest]
    good = [Sum(frozenset(pair), False) for pair in rest]
    assert named(posterior(NAMES, (bad + good) * 4)) == {"ada"}


def test_every_set_that_is_counted_can_be_counted() -> None:
    for count in (1, 2, 8, 24, 64, 300, 3000):
        most = most_liars(count)
        assert sum(math.comb(count, k) for k in range(most + 1)) <= 15_000
        assert most >= 1
    assert NAMED == 0.999
