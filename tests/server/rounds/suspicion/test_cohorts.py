"""Cohorts shrink while sums fail; without the liar rounds go on, and no honest one is accused."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from nomoat.server.rounds.cohort import select
from nomoat.server.rounds.records import RoundRecord
from nomoat.server.rounds.suspicion.cohorts import ALARM, Suspicion, sums_of, suspicion_of
from nomoat.server.rounds.suspicion.parts import parts_of
from nomoat.server.rounds.suspicion.posterior import Sum, posterior

IN_A_ROW = 3  # failures that nobody takes for chance
NAMES = tuple(f"v{i:02d}" for i in range(20))
SEED = b"s" * 32


def record(number: int, members: tuple[str, ...], failed: bool) -> RoundRecord:
    return RoundRecord(number, not failed, "", members, members)


def play(liars: set[str], seed: int, rounds: int) -> tuple[list[RoundRecord], Suspicion]:
    """A community in which whatever a liar is in fails, and one honest sum in fifty."""
    rng = np.random.default_rng(seed)
    records: list[RoundRecord] = []
    for number in range(1, rounds + 1):
        cohort = suspicion_of(records).cohort(NAMES, 1.0, 8, rng.bytes(32))
        failed = bool(liars & set(cohort)) or bool(rng.random() < 0.02)
        records.append(record(number, cohort, failed))
    return records, suspicion_of(records)


def test_while_all_is_well_the_cohort_is_the_one_it_always_was() -> None:
    few = [record(n, NAMES, failed=True) for n in range(1, IN_A_ROW)]
    well = [record(n, NAMES, failed=False) for n in range(16)]
    for records in ([], few, [*few, *well, *few], [*well, *few, *well, *few]):
        found = suspicion_of(records).cohort(NAMES, 0.7, 8, SEED)
        assert found == select(NAMES, 0.7, 8, SEED)


def test_a_sum_in_fifty_that_fails_by_itself_is_hardly_ever_taken_for_a_liar() -> None:
    rng, alarms = np.random.default_rng(0), 0
    for _ in range(200):
        failed = rng.random(60) < 0.02
        records = [record(n, NAMES[:2], bool(bad)) for n, bad in enumerate(failed)]
        alarms += suspicion_of(records) != Suspicion()
    assert alarms <= 12000 / math.exp(ALARM)


def test_who_acts_in_a_third_of_its_sums_is_searched_for_though_three_in_a_row_hardly_fail() -> (
    None
):
    records = [record(n, NAMES, failed=n % 4 == 1) for n in range(14)]
    assert suspicion_of(records[:9]) == Suspicion()
    assert suspicion_of(records).searching
    assert suspicion_of(records).sums(20, 8, 2) == 2


def test_after_three_failures_in_a_row_cohorts_are_smaller_but_never_too_small() -> None:
    records = [record(n, NAMES, failed=True) for n in range(1, IN_A_ROW + 1)]
    cohort = suspicion_of(records).cohort(NAMES, 1.0, 8, SEED)
    assert 8 <= len(cohort) <= len(NAMES) / 2
    assert suspicion_of(records).cohort(NAMES[:8], 1.0, 8, SEED) == NAMES[:8]


def test_a_liar_is_set_aside_rounds_go_on_and_nobody_else_is_accused() -> None:
    records, after = play({"v07"}, 1, 40)
    assert after.set_aside == {"v07"}
    assert not after.searching
    assert "v07" not in after.cohort(NAMES, 1.0, 8, SEED)
    assert sum(one.committed for one in records) >= 25


def test_rounds_without_a_sum_say_nothing() -> None:
    records = [RoundRecord(n, False, "2 of 8 ready", NAMES) for n in range(1, 9)]
    assert suspicion_of(records) == Suspicion()


# --- several sums in a round ----------------------------------------------------------------------


def split(
    records: list[RoundRecord],
    names: tuple[str, ...],
    most: int,
    liars: set[str],
    rng: np.random.Generator,
) -> RoundRecord:
    """One more round of a community that may make so many sums of eight or more."""
    so_far = suspicion_of(records)
    sums = so_far.sums(len(set(names) - so_far.set_aside), 8, most)
    cohort = so_far.cohort(names, 1.0, 8, rng.bytes(32), sums)
    parts = parts_of(cohort, sums, 8, rng.bytes(32))
    bad = [part for part in parts if liars & set(part) or rng.random() < 0.02]
    good = tuple(name for part in parts if part not in bad for name in part)
    left_out = {name: place for place, part in enumerate(bad) for name in part}
    if len(parts) == 1:  # a bad sum is the round's
        return RoundRecord(len(records), not bad, "", cohort, cohort)
    return RoundRecord(len(records), bool(good), "", cohort, good, sums=sums, left_out=left_out)


@pytest.mark.parametrize(("count", "most", "within"), [(24, 3, 12), (64, 8, 10)])
@pytest.mark.parametrize("seed", range(4))
def test_several_sums_in_a_round_name_a_liar_in_fewer_rounds_which_all_count(
    count: int, most: int, within: int, seed: int
) -> None:
    names = tuple(f"v{i:02d}" for i in range(count))
    rng, records = np.random.default_rng(seed), list[RoundRecord]()
    for _ in range(within):
        records.append(split(records, names, most, {"v07"}, rng))
    assert suspicion_of(records).set_aside == {"v07"}
    assert sum(not one.committed for one in records[IN_A_ROW:]) <= 1  # by itself


def test_without_suspicion_there_is_one_sum() -> None:
    assert Suspicion().sums(24, 8, 3) == 1
    well = [record(n, NAMES, failed=False) for n in range(9)]
    assert suspicion_of(well).sums(20, 8, 3) == 1


def test_sums_are_never_below_the_least_and_never_more_than_was_asked_for() -> None:
    found = suspicion_of([record(n, NAMES, failed=True) for n in range(IN_A_ROW)])
    assert [found.sums(count, 8, 3) for count in (7, 15, 16, 24, 99)] == [1, 1, 2, 3, 3]
    assert found.sums(99, 8, 1) == 1


def test_where_nothing_shows_in_the_sums_cohorts_are_smaller_instead() -> None:
    failed = [record(n, NAMES, failed=True) for n in range(IN_A_ROW)]
    at_the_gate = RoundRecord(9, False, "held-out loss rose", NAMES, NAMES, sums=2)
    found = suspicion_of([*failed, at_the_gate])
    assert found.sums(20, 8, 2) == 1
    assert len(found.cohort(NAMES, 1.0, 8, SEED)) <= len(NAMES) / 2


def test_good_sums_taken_together_say_what_they_say_one_by_one() -> None:
    parts = [frozenset(NAMES[n::4]) for n in range(4)]
    bad = [Sum(parts[0], True), Sum(frozenset(NAMES[:9]), True)]
    together = posterior(NAMES, [*bad, Sum(frozenset().union(*parts[1:]), False)])
    one_by_one = posterior(NAMES, [*bad, *(Sum(part, False) for part in parts[1:])])
    assert together == pytest.approx(one_by_one, rel=1e-9)


def test_a_record_keeps_which_sums_were_left_out() -> None:
    kept = RoundRecord(4, True, "", NAMES, NAMES[:9], sums=3, left_out={"v12": 0, "v13": 1})
    again = RoundRecord.from_json(json.loads(json.dumps(kept.as_json())))
    assert sums_of(again) == sums_of(kept)
    assert {one.members for one in sums_of(kept) if one.failed} == {
        frozenset({"v12"}),
        frozenset({"v13"}),
    }
