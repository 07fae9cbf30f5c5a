"""Suspicion is told with how often it is wrong, and only of those it is about."""

from __future__ import annotations

import pytest

from nomoat.server.rounds.records import RoundRecord
from nomoat.server.rounds.suspicion.posterior import NAMED, Sum, named_by_chance, posterior
from nomoat.server.rounds.suspicion.telling import told

NAMES = tuple(f"v{i:02d}" for i in range(24))


def test_nobody_is_spoken_of_while_all_is_well() -> None:
    assert told([RoundRecord(n, True, "", NAMES, NAMES) for n in range(9)]) == {}


def test_a_suspect_is_told_of_with_both_bounds() -> None:
    failed = [RoundRecord(n, False, "", NAMES, NAMES) for n in range(3)]
    split = [
        RoundRecord(
            9 + n, True, "", NAMES, NAMES[8:], sums=3, left_out={"v00": 0, f"v{n + 1:02d}": 0}
        )
        for n in range(5)
    ]
    (name, sentence), *others = told([*failed, *split]).items()
    assert (name, others) == ("v00", [])
    assert "is not asked any more" in sentence
    assert "an honest one once in 18,981 stretches of 60 rounds" in sentence
    assert "one in 1,000 of those who are not asked is honest" in sentence


@pytest.mark.parametrize("count", [2, 24, 64])
def test_the_bound_by_chance_is_no_less_than_what_it_takes_from_the_prior_to_be_named(
    count: int,
) -> None:
    prior = posterior(tuple(map(str, range(count))), ())["0"]  # of sets that are not too large
    exact = prior / (1 - prior) * (1 - NAMED) / NAMED
    assert exact <= named_by_chance(count) * 1.001
    assert named_by_chance(count) <= 2 * exact


def test_a_sum_that_is_far_too_large_tells_more_than_one_that_failed() -> None:
    found = [
        posterior(NAMES, [Sum(frozenset(NAMES[:8]), True, large=large)])["v00"]
        for large in (False, True)
    ]
    assert found[0] < found[1]
