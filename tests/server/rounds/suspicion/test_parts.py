"""A cohort is split at random into disjoint parts, none of them too small; nobody is left over."""

from __future__ import annotations

import numpy as np
import pytest

from nomoat.server.rounds.suspicion.parts import parts_of

NAMES = tuple(f"v{number:02d}" for number in range(24))


@pytest.mark.parametrize("seed", range(300))
def test_parts_are_disjoint_large_enough_and_hold_everybody_once(seed: int) -> None:
    rng = np.random.default_rng(seed)
    cohort = [f"v{n}" for n in range(int(rng.integers(1, 70)))]
    most, least = int(rng.integers(1, 12)), int(rng.integers(2, 20))
    parts = parts_of(cohort, most, least, rng.bytes(32))
    assert sorted(name for part in parts for name in part) == sorted(cohort)
    assert 1 <= len(parts) <= most
    assert len(parts) == 1 or min(map(len, parts)) >= least
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert len(parts) == most or len(cohort) < (len(parts) + 1) * least


def test_the_same_seed_draws_the_same_parts_and_another_one_others() -> None:
    assert parts_of(NAMES, 3, 8, b"a" * 32) == parts_of(reversed(NAMES), 3, 8, b"a" * 32)
    assert parts_of(NAMES, 3, 8, b"a" * 32) != parts_of(NAMES, 3, 8, b"b" * 32)


def test_two_volunteers_are_together_as_often_as_chance_has_it() -> None:
    drawn = [parts_of(NAMES, 3, 8, n.to_bytes(32, "big")) for n in range(2000)]
    together = sum(any({"v00", "v01"} <= set(part) for part in parts) for parts in drawn)
    assert abs(together / 2000 - 7 / 23) < 0.04


def test_the_most_suspected_are_in_different_parts_and_who_else_is_with_them_is_drawn() -> None:
    suspected = {"v03": 0.9, "v04": 0.8, "v05": 0.7, **dict.fromkeys(NAMES[6:9], 1e-09)}
    drawn = [parts_of(NAMES, 3, 8, bytes([n]) * 32, suspected) for n in range(20)]
    for parts in drawn:
        assert sorted(name for part in parts for name in part) == list(NAMES)
        assert {len(part) for part in parts} == {8}
        assert all(len({"v03", "v04", "v05"} & set(part)) == 1 for part in parts)
    beside = [next(part for part in parts if "v03" in part) for parts in drawn]
    assert len(set(beside)) == 20
