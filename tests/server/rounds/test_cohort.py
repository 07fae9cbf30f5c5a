"""Who is asked is a fair seeded draw that depends on nothing but its inputs."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nomoat.aggregation.sums.exact_sum import MAX_TERMS
from nomoat.server.rounds.cohort import as_before, full, generator, round_seed, select, sums_from
from nomoat.server.rounds.records import RoundRecord

SEED = b"\x01" * 32


@given(
    count=st.integers(0, 60),
    fraction=st.floats(0.01, 1.0),
    minimum=st.integers(1, 70),
    seed=st.binary(min_size=32, max_size=32),
)
def test_the_draw_has_the_size_asked_for_and_knows_everyone_in_it(
    count: int, fraction: float, minimum: int, seed: bytes
) -> None:
    names = {f"v{i}" for i in range(count)}
    chosen = select(names, fraction, minimum, seed)
    assert set(chosen) <= names
    assert list(chosen) == sorted(set(chosen))
    assert len(chosen) == min(count, max(minimum, math.ceil(fraction * count - 1e-9)))


def test_the_order_of_the_available_does_not_matter() -> None:
    names = [f"v{i}" for i in range(50)]
    assert select(names, 0.3, 2, SEED) == select(list(reversed(names)), 0.3, 2, SEED)


def test_each_round_draws_anew_and_everyone_gets_a_turn() -> None:
    names = [f"v{i}" for i in range(20)]
    draws = [select(names, 0.25, 2, round_seed(SEED, "cohort", r)) for r in range(1, 61)]
    assert len(set(draws)) > 50
    turns = [sum(name in draw for draw in draws) for name in names]
    assert min(turns) > 5  # 15 expected each; 5 has a chance below 1 in 1000
    assert draws == [select(names, 0.25, 2, round_seed(SEED, "cohort", r)) for r in range(1, 61)]


def test_a_fraction_that_divides_evenly_is_not_rounded_up() -> None:
    assert len(select([f"v{i}" for i in range(10)], 0.3, 1, SEED)) == 3
    assert len(select([f"v{i}" for i in range(10)], 0.31, 1, SEED)) == 4


def test_a_cohort_is_never_larger_than_an_exact_sum() -> None:
    crowd = [f"v{i:05d}" for i in range(MAX_TERMS + 100)]
    assert len(select(crowd, 1.0, 2, SEED)) == MAX_TERMS


@pytest.mark.parametrize("other", [("train", 1), ("cohort", 2), ("cohort", 256)])
def test_no_two_purposes_or_rounds_share_a_stream(other: tuple[str, int]) -> None:
    first = generator(round_seed(SEED, "cohort", 1)).random(8)
    second = generator(round_seed(SEED, *other)).random(8)
    assert not (first == second).any()


def test_who_has_been_in_three_cohorts_of_one_adapter_is_asked_in_those_only() -> None:
    def thrown_away(number: int, names: str, adapter: str = "aa") -> RoundRecord:
        return RoundRecord(number, False, "", contributors=tuple(names), adapter=adapter)

    records = [thrown_away(1, "abc"), thrown_away(2, "abd"), thrown_away(3, "acd")]
    sums = sums_from([*records, thrown_away(4, "a", "bb"), RoundRecord(5, False, "")], "aa")
    assert full(sums) == {"a"}
    assert full(sums[:2] * 2) == frozenset()  # one more may differ
    assert full(sums_from(records, "bb")) == frozenset()  # that was another adapter
    assert as_before(sums, set("abcd"), 3) == ("a", "c", "d")
    assert as_before(sums, set("abc"), 3) == ("a", "b", "c")
    assert as_before(sums, set("ab"), 2) is None  # nobody's earlier cohort is there
    assert as_before(sums, set("abcd"), 4) is None
    assert as_before([*sums, sums[0]], set("abcd"), 3) is None  # the fourth
