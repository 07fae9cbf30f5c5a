"""A member that spoils masked rounds is named, and after the first (or second) they go on without.

Real machines on both sides, over several rounds.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from nomoat.aggregation.protocol.roster import Event
from nomoat.server.rounds.machines.patience import Patience
from tests.hostile import members
from tests.hostile.members import Village

CHEAT = "v3"


def test_a_dealer_of_wrong_shares_costs_one_round_and_is_held_for_it(tmp_path: Path) -> None:
    village = Village(tmp_path, 8, {CHEAT: members.deals_shares_of_something_else})
    first, *after = village.run(2)
    assert not first.committed
    assert list(first.held) == [CHEAT]
    assert first.dropped == {}  # nobody else was late, or is said to have been
    assert "its shares do not make the secret" in village.held()[CHEAT]
    assert all(record.committed for record in after)
    assert all(CHEAT not in record.cohort for record in after)


def test_whoever_deals_broken_shares_to_many_is_held_after_the_first_round(tmp_path: Path) -> None:
    village = Village(tmp_path, 8, {CHEAT: members.deals_broken_boxes(7)})
    first, *after = village.run(2)
    assert first.committed  # it was left out before anybody masked
    assert first.dropped[CHEAT].startswith("its shares were complained about by v0, v1, v2")
    assert list(village.held()) == [CHEAT]
    assert all(record.committed and len(record.contributors) == 7 for record in after)


@pytest.mark.parametrize("accused", [("v1",), ("v0", "v1", "v2", "v4", "v5")])
def test_false_complaints_are_put_up_with_twice_at_most(
    tmp_path: Path, accused: tuple[str, ...]
) -> None:
    village = Village(tmp_path, 8, {CHEAT: members.complains_about(*accused)})
    records = village.run(3)
    assert list(village.held()) == [CHEAT]
    assert "complained about" in village.held()[CHEAT]
    for record in records[2:]:
        assert record.committed
        assert len(record.contributors) == 7
    assert all(set(record.dropped) <= set(accused) for record in records)


def test_strikes_are_remembered_by_a_coordinator_that_is_started_anew(tmp_path: Path) -> None:
    village = Village(tmp_path, 8, {CHEAT: members.complains_about("v1")})
    village.run(1)
    assert village.held() == {}
    village.restart()
    village.run(1)
    assert list(village.held()) == [CHEAT]
    village.restart()
    assert list(village.held()) == [CHEAT]


def test_a_dealer_of_one_broken_box_frames_no_more_than_can_be_corrupt(tmp_path: Path) -> None:
    """Whom it framed is let in again as soon as too many have complained about it."""
    village = Village(tmp_path, 8, {CHEAT: members.deals_broken_boxes(1)})
    village.run(7)
    assert list(village.held()) == [CHEAT]
    record = village.run(1)[0]
    assert record.committed
    assert len(record.contributors) == 7


@pytest.mark.parametrize(
    "cheat", [members.reveals_nonsense, members.sends_another_vector_than_it_signs]
)
def test_wrong_answers_that_cost_the_others_nothing_are_put_up_with_once(
    tmp_path: Path, cheat: members.Cheat
) -> None:
    village = Village(tmp_path, 8, {CHEAT: cheat})
    first, second, third = village.run(3)
    assert first.committed
    assert CHEAT in first.refused
    assert first.held == {}
    assert list(second.held) == [CHEAT]
    assert CHEAT not in third.cohort


def test_a_sum_that_does_not_decode_counts_against_all_who_are_in_it(tmp_path: Path) -> None:
    """So the search for whom bad sums are through (smaller cohorts, Bayes' rule) begins with it."""
    village = Village(tmp_path, 9, {CHEAT: members.sends_noise_for_its_vector})
    records = village.run(4)
    assert all("not one of well-formed updates" in record.reason for record in records[:3])
    assert all(set(record.contributors) == set(village.machines) for record in records[:3])
    assert len(records[3].cohort) < 9


def test_whoever_is_approved_again_begins_anew(tmp_path: Path) -> None:
    village = Village(tmp_path, 8, {CHEAT: members.complains_about("v1")})
    village.run(2)
    village.now += 10
    village.registrar.order(CHEAT, Event.RELEASE, "", village.now)
    village.run(1)
    assert village.held() == {}
    village.run(1)
    assert list(village.held()) == [CHEAT]


DEADLINES = {
    "train_deadline_s": 3600.0,
    "aggregate_deadline_s": 300.0,
    "evaluate_deadline_s": 600.0,
}


@pytest.mark.parametrize(("kind", "rounds"), [("train.local", 14), ("query.sa_offer", 4)])
def test_a_silent_member_keeps_nobody_waiting_and_is_held_after_three_times(
    tmp_path: Path, kind: str, rounds: int
) -> None:
    """The clock moves on while nobody answers: a deadline waited for would show in it."""
    village = Village(tmp_path, 4, silent={CHEAT: ("evaluate.heldout", kind)})
    records = village.run(rounds, patience=Patience(1.5, 2.0), **DEADLINES)
    assert list(village.held()) == [CHEAT]
    assert "did not answer 3 times in a row" in village.held()[CHEAT]
    assert all(record.committed for record in records)
    assert village.seconds < 200  # of an hour in every round
