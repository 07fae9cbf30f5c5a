"""What a coordinator that signs whatever it likes gets out of honest volunteers, over many rounds.

Each attack was found by reading docs/protocol.md §19 as an adversary would.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from builders import evaluate_task, train_task
from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.aggregation.protocol.messages import Decline, Evaluation, Ready
from nomoat.aggregation.secagg.messages import Abandoned
from nomoat.client.membership.day_of_rounds import TRAININGS, DayOfRounds
from tests.hostile.coordinator import ONE_STEP_OVER_ALL_ROWS, SPEC, Lies
from tests.hostile.signed_chain import SignedTown

A_DAY = 2  # rounds that these owners agreed to


@pytest.fixture
def town(tmp_path: Path) -> SignedTown:
    return agreeing_to(1000, SignedTown(tmp_path, 9))


def agreeing_to(rounds: int, town: SignedTown) -> SignedTown:
    """The town, whose owners agreed to so many rounds a day."""
    for name in town.names:
        session = town.volunteers[name].session
        day = DayOfRounds(town.folder / name, rounds, lambda: town.now)
        session._limits = replace(session._limits, may_train=day.begin, may_measure=day.measure)
    return town


def nudged(adapter: Adapter, by: float) -> Adapter:
    return Adapter(SPEC, adapter.vector + np.float32(by))


def test_signing_a_new_version_for_every_pair_gives_as_many_sums_as_a_day_has_rounds(
    town: SignedTown,
) -> None:
    """Adapters that hardly differ, each signed as a version: v1 is left out of every other one."""
    agreeing_to(A_DAY, town)
    sums = []
    for number in range(1, 6):
        names = town.names if number % 2 else town.names[1:]
        town.train(number, names)
        sums.append(town.sum(number, names))
        town.begin_again(nudged(town.start, 1e-6 * number))
        town.start = nudged(town.start, 1e-6 * number)
    done = [found for found in sums if found is not None]
    assert len(done) == A_DAY
    inside = Counter(name for found in done for name in found.members)
    assert max(inside.values()) <= A_DAY
    assert len(town.chain.records) == 6  # and every one of them is evidence


def test_a_session_for_a_round_long_over_takes_only_updates_that_were_in_no_sum(
    town: SignedTown,
) -> None:
    """v9 was left out of round 1 and holds its update while the others go on."""
    town.train(1)
    first = town.sum(1, town.names[:8])
    for number in (2, 3):
        town.start = nudged(town.start, 0.01)
        town.begin_again(town.start)
        town.train(number, town.names[:8])
        assert town.sum(number, town.names[:8]) is not None
    assert first is not None
    assert town.sum(1, town.names) is None
    assert town.sum(1, town.names[1:]) is None


def test_two_chains_shown_to_two_halves_never_meet_in_one_sum(town: SignedTown) -> None:
    other = town.chain.copy()
    other.version(nudged(town.start, 0.02), 1)
    town.begin_again(nudged(town.start, 0.01))
    for name in town.names[4:]:
        town.shown[name] = other
    one, two = nudged(town.start, 0.01), nudged(town.start, 0.02)
    assert all(isinstance(a, Ready) for a in town.train(2, town.names[:4], start=one).values())
    assert all(isinstance(a, Ready) for a in town.train(2, town.names[4:], start=two).values())
    assert town.sum(2, start=one) is None
    assert town.sum(2, start=two) is None
    town.shown.clear()  # the second half is brought over to the first chain
    answers = town.train(2, town.names[4:], start=one)
    assert not any(isinstance(answer, Ready) for answer in answers.values())


def test_many_small_trainings_of_one_round_do_not_tell_the_losses_of_single_rows(
    town: SignedTown,
) -> None:
    """`Ready` tells the loss before the first step; each training draws its rows anew."""
    tiny = replace(ONE_STEP_OVER_ALL_ROWS, batch_size=1)
    told = 0
    for attempt in range(50):
        seed = attempt.to_bytes(32, "big")  # another task of the same round
        answer = town.train(1, ["v1"], settings=tiny, seed=seed)["v1"]
        told += isinstance(answer, Ready)
    assert told <= TRAININGS


def test_one_adapter_measured_under_other_settings_counts_as_another_measurement(
    town: SignedTown,
) -> None:
    """Rows cut at 8, 16, 24 … tokens would tell the loss of every stretch of them."""
    candidate = nudged(town.start, 0.01)
    told = 0
    for seq_len in range(8, 512, 8):
        settings = replace(ONE_STEP_OVER_ALL_ROWS, seq_len=seq_len)
        answer = town.ask("v1", evaluate_task(candidate, 1, settings=settings))
        told += isinstance(answer, Evaluation)
    assert told == 2


def test_ends_of_rounds_signed_one_after_the_other_give_no_endless_measurements(
    town: SignedTown,
) -> None:
    """No round is even begun: a signature each is all that 47 adapters would cost."""
    agreeing_to(A_DAY, town)
    told = 0
    for number in range(1, 48):
        answer = town.evaluate(number, nudged(town.start, 0.001 * number), "v1")
        told += isinstance(answer, Evaluation)
        town.chain.end(number)
    assert told == A_DAY


def test_withholding_the_certificate_in_every_round_buys_no_further_sum(town: SignedTown) -> None:
    """v1's vector is in each sum although it sees none of them end."""
    withheld = Lies(withheld={"reveals": ["v1"]})
    trainings: Counter[tuple[str, int]] = Counter()  # whose, and the how many-th
    for number in range(1, 5):
        town.train(number)
        for names in (town.names, town.names[:8], town.names):
            found = town.sum(number, names, withheld)
            if found is not None:
                trainings.update((n, len(town.trainers[n].updates)) for n in found.members)
            town.ask("v1", Abandoned("for some reason"))
        town.chain.end(number)
    assert max(trainings.values()) == 1
    # From one adapter, with v1's cohorts unknown to it: the first sum and `repeats` more.
    assert sum(name == "v1" for name, _ in trainings) == 3


def test_a_task_of_the_present_round_for_the_adapter_before_is_refused(town: SignedTown) -> None:
    before = town.start
    town.begin_again(nudged(before, 0.01))
    answer = town.ask("v1", train_task(before, 2, base_hash=b"b" * 32))
    assert isinstance(answer, Decline)
    assert town.trainers["v1"].updates == []
