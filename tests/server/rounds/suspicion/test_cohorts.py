"""Cohorts shrink while sums fail; without the liar rounds go on, and no honest one is accused."""

from __future__ import annotations

import numpy as np

from nomoat.server.rounds.cohort import select
from nomoat.server.rounds.records import RoundRecord
from nomoat.server.rounds.suspicion.cohorts import IN_A_ROW, Suspicion, suspicion_of

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
    for records in ([], few, [*few, record(9, NAMES, failed=False), *few]):
        found = suspicion_of(records).cohort(NAMES, 0.7, 8, SEED)
        assert found == select(NAMES, 0.7, 8, SEED)


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
