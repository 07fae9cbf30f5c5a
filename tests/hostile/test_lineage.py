"""Rounds go forward along versions that the community has signed, whatever a coordinator says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.aggregation.protocol.messages import Decline, Evaluation, Ready
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.client.round.work import Reason
from tests.hostile.coordinator import SPEC
from tests.hostile.signed_chain import Chain, SignedTown

REST = [f"v{i}" for i in range(2, 10)]


@pytest.fixture
def town(tmp_path: Path) -> SignedTown:
    return SignedTown(tmp_path, 9)


def nudged(adapter: Adapter, place: int = 0) -> Adapter:
    """The adapter with one value changed by a hair."""
    values = adapter.vector.copy()
    values[place] += np.float32(1e-6)
    return Adapter(SPEC, values)


def took_part(answers: dict[str, object]) -> set[str]:
    return {name for name, answer in answers.items() if isinstance(answer, Ready)}


def test_rounds_that_are_committed_or_abandoned_follow_each_other(town: SignedTown) -> None:
    for number in (1, 2, 3):
        assert took_part(town.train(number)) == set(town.names)
        found = town.sum(number)
        assert found is not None
        if number == 2:
            town.chain.end(2)  # abandoned: the version before stands
        else:
            town.start = nudged(town.start)
            town.chain.version(town.start, number)


def test_an_adapter_with_one_value_changed_is_no_version_and_is_not_trained_from(
    town: SignedTown,
) -> None:
    town.train(1)
    assert town.sum(1) is not None
    town.chain.end(1)
    for number, place in ((2, 0), (2, 1), (3, 2)):
        answers = town.train(number, REST, start=nudged(town.start, place))
        assert set(answers.values()) == {Decline(number, Reason.UNSAFE.value)}
    assert took_part(town.train(2, REST)) == set(REST)


def test_no_round_is_begun_before_the_end_of_the_one_before_is_signed(town: SignedTown) -> None:
    town.train(1)
    assert town.sum(1) is not None
    assert set(town.train(2, REST).values()) == {Decline(2, Reason.UNSAFE.value)}
    town.chain.end(1)
    assert took_part(town.train(2, REST)) == set(REST)
    assert set(town.train(9, REST).values()) == {Decline(9, Reason.UNSAFE.value)}


def test_a_round_whose_end_was_signed_is_over(town: SignedTown) -> None:
    town.chain.end(5)
    assert set(town.train(5, REST).values()) == {Decline(5, Reason.STALE.value)}
    town.chain.end(2)  # the coordinator would begin again, with rounds signed long ago
    for name in REST:
        town.restart(name)
    answers = town.train(3, REST)
    assert set(answers.values()) <= {Decline(3, "stale round"), Decline(3, Reason.UNSAFE.value)}
    town.chain.end(5)
    assert took_part(town.train(6, REST)) == set(REST)


def test_a_history_that_is_rewritten_is_refused_by_whoever_saw_the_first(town: SignedTown) -> None:
    past = town.chain.copy()
    town.begin_again(nudged(town.start))
    town.train(2, start=nudged(town.start))
    past.version(nudged(town.start, 3), 1)
    town.chain = past
    for name in REST:
        town.restart(name)
    answers = town.train(2, REST, start=nudged(town.start, 3))
    assert set(answers.values()) == {Decline(2, Reason.UNSAFE.value)}


def test_a_chain_that_another_key_signed_is_refused(town: SignedTown) -> None:
    forged = Chain(key=SigningKey(b"f" * 32))
    forged.version(nudged(town.start), 0)
    town.chain = forged
    answers = town.train(1, start=nudged(town.start))
    assert set(answers.values()) == {Decline(1, Reason.UNSAFE.value)}


def test_a_coordinator_that_shows_no_lineage_trains_nobody(town: SignedTown) -> None:
    town.answers = False
    assert set(town.train(1).values()) == {Decline(1, Reason.UNSAFE.value)}


def test_only_candidates_of_the_present_round_are_measured(town: SignedTown) -> None:
    """Else the number of a round is a way to ask for the losses of any number of adapters."""
    answers = [
        town.evaluate(number, nudged(town.start, place), "v1")
        for number in (1, 2, 3, 40)
        for place in range(10)
    ]
    assert sum(isinstance(answer, Evaluation) for answer in answers) == 2
    town.chain.end(1)
    answers = [town.evaluate(2, nudged(town.start, place), "v1") for place in range(10)]
    assert sum(isinstance(answer, Evaluation) for answer in answers) == 2


def test_before_the_first_round_the_first_version_alone_is_measured(town: SignedTown) -> None:
    assert isinstance(town.evaluate(0, nudged(town.start), "v1"), Decline)
    assert isinstance(town.evaluate(0, town.start, "v1"), Evaluation)


def test_who_was_shown_another_chain_is_in_no_sum_with_those_who_were_not(town: SignedTown) -> None:
    """A version that the others have no record of is worth nothing, whatever its adapter."""
    other = town.chain.copy()
    town.begin_again(nudged(town.start))
    other.version(nudged(town.start, 3), 1)  # a version of which the others hear nothing
    other.version(nudged(town.start), 1)
    town.shown["v1"] = other
    assert took_part(town.train(2, start=nudged(town.start))) == set(town.names)
    found = town.sum(2, start=nudged(town.start))
    assert found is not None
    assert found.members == set(REST)
