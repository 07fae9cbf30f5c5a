"""One update never comes out of two sums, whatever sequence of messages a coordinator sends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nomoat.aggregation.protocol.adapter import Adapter, as_bytes
from nomoat.aggregation.protocol.messages import Decline, Ready
from nomoat.aggregation.secagg.messages import Abandoned
from nomoat.aggregation.secagg.parameters import Policy
from nomoat.client.round.training_origin import version_by_round
from nomoat.client.round.work import Reason
from tests.hostile.coordinator import SPEC, Lies, Town, correlation


@pytest.fixture
def town(tmp_path: Path) -> Town:
    """Nine volunteers with the default policy: not weak."""
    return Town(tmp_path, 9)


@pytest.fixture
def renamed(tmp_path: Path) -> Town:
    """The same where the coordinator passes one adapter off as a new version in every round."""
    return Town(tmp_path, 9, version_of=version_by_round)


def moved(adapter: Adapter, by: float) -> Adapter:
    return Adapter(SPEC, adapter.vector + np.float32(by))


def test_honest_rounds_are_summed_as_long_as_versions_follow_each_other(town: Town) -> None:
    for number in range(1, 4):
        start = moved(town.start, 0.01 * number)
        answers = town.train(number, start=start)
        assert all(isinstance(answer, Ready) for answer in answers.values())
        found = town.sum(number, start=start)
        assert found is not None
        assert found.members == set(town.names)


def test_a_round_is_not_summed_twice_after_the_next_has_overtaken_it(town: Town) -> None:
    town.train(1)
    assert town.sum(1) is not None
    town.overtake(2, start=moved(town.start, 0.01))
    assert town.sum(1, town.names[1:]) is None


def test_two_rounds_that_are_one_are_summed_once(town: Town) -> None:
    town.train(1)
    assert town.sum(1) is not None
    answers = town.train(2)
    assert set(answers.values()) == {Decline(2, Reason.SPENT.value)}
    assert town.sum(2, town.names[1:]) is None
    assert all(len(trainer.updates) == 1 for trainer in town.trainers.values())


@pytest.mark.parametrize("kept", [["v2"], ["v2", "v3", "v4"]])
def test_who_was_kept_from_the_certificate_is_in_no_second_sum(town: Town, kept: list[str]) -> None:
    """Its vector is in the first sum although it never revealed anything."""
    town.train(1)
    found = town.sum(1, lies=Lies(withheld={"reveals": kept}))
    assert found is not None
    assert set(kept) <= found.members
    for name in kept:
        town.ask(name, Abandoned("for some reason"))
    town.overtake(2, start=moved(town.start, 0.01))
    assert town.sum(1, town.names[1:]) is None


def test_a_session_said_to_be_abandoned_after_the_masked_vectors_costs_the_updates(
    town: Town,
) -> None:
    town.train(1)
    assert town.sum(1, lies=Lies(silenced={"signatures": town.names})) is None
    assert town.sum(1, town.names[1:]) is None
    assert set(town.train(2).values()) == {Decline(2, Reason.SPENT.value)}


def test_a_session_abandoned_before_the_masked_vectors_costs_nothing(town: Town) -> None:
    town.train(1)
    assert town.sum(1, lies=Lies(silenced={"checks": town.names[:4]})) is None
    assert town.sum(1) is not None


def test_a_round_of_several_sums_has_each_volunteer_in_one_of_them(tmp_path: Path) -> None:
    town = Town(tmp_path, 16)
    town.train(1)
    first, second = town.names[:8], town.names[8:]
    assert town.sum(1, first) is not None
    town.restart(first[0])
    for guest in (first[0], first[1]):  # at once, and after a crash
        assert town.sum(1, [guest, *second[:7]]) is None
    assert len(town.trainers[first[1]].updates) == 1
    found = town.sum(1, second)
    assert found is not None
    assert found.members == set(second)


def test_who_was_in_a_sum_that_came_to_nothing_is_in_no_other_part(tmp_path: Path) -> None:
    town = Town(tmp_path, 16)
    town.train(1)
    first, second = town.names[:8], town.names[8:]
    assert town.sum(1, first, lies=Lies(silenced={"signatures": first})) is None
    assert town.sum(1, [*first[:1], *second[:7]]) is None
    assert town.sum(1, second) is not None


@pytest.mark.parametrize("detour", [False, True])
def test_restarted_volunteers_remember_what_they_were_summed_in(town: Town, detour: bool) -> None:
    town.train(1)
    assert town.sum(1) is not None
    if detour:
        town.overtake(2, start=moved(town.start, 0.01))
    for name in town.names:
        town.restart(name)
    assert town.sum(1, town.names[1:]) is None
    town.train(1)
    assert town.sum(1, town.names[1:]) is None


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20])


@pytest.mark.parametrize("lose", [emptied, cut, Path.unlink], ids=["emptied", "cut", "gone"])
def test_a_volunteer_that_lost_its_diary_waits_for_another_version(
    town: Town, lose: Callable[[Path], None]
) -> None:
    town.train(1)
    assert town.sum(1) is not None
    for name in town.names:
        lose(town.folder / name / "marks.jsonl")
        town.restart(name)
    rest = town.names[1:]
    for number in (2, 3, 2):
        assert set(town.train(number, rest).values()) == {Decline(number, Reason.SPENT.value)}
        assert town.sum(number, rest) is None
        for name in rest:
            town.restart(name)
    start = moved(town.start, 0.01)
    town.train(2, rest, start=start)
    assert town.sum(2, rest, start=start) is None  # of the round it was told of first
    assert all(isinstance(one, Ready) for one in town.train(3, rest, start=start).values())
    assert town.sum(3, rest, start=start) is not None


def test_an_update_that_has_left_is_not_on_the_disk_any_more(town: Town) -> None:
    town.train(1)
    assert (town.folder / "v1" / "update.safetensors").exists()
    assert town.sum(1) is not None
    assert [path.name for path in (town.folder / "v1").iterdir()] == ["marks.jsonl"]


def test_the_exchanges_of_a_round_are_over_the_same_volunteers(town: Town) -> None:
    """Else QᵀΔΩ of who was left out is the difference of two sums, for any Q of the coordinator."""
    town.train(1, method="fedask")
    assert town.sum(1, method="fedask") is not None
    reply = as_bytes(np.ones(_sketch_size(), np.float32))
    assert town.sum(1, town.names[1:], exchange=2, method="fedask", reply=reply) is None
    left = Lies(silenced={"masked": ["v1"]})
    assert town.sum(1, lies=left, exchange=2, method="fedask", reply=reply) is None
    assert town.sum(1, exchange=2, method="fedask", reply=reply) is None  # their vectors have left


def test_the_exchanges_of_a_round_are_summed_over_all_who_began_it(town: Town) -> None:
    town.train(1, method="fedask")
    assert town.sum(1, method="fedask") is not None
    reply = as_bytes(np.ones(_sketch_size(), np.float32))
    found = town.sum(1, exchange=2, method="fedask", reply=reply)
    assert found is not None
    assert found.members == set(town.names)
    assert town.sum(1, exchange=2, method="fedask", reply=reply) is None


def _sketch_size() -> int:
    from nomoat.aggregation import methods

    return methods.get("fedask").manifest(SPEC, 1, 1).size


def test_an_adapter_in_the_guise_of_new_versions_is_summed_over_few_different_cohorts(
    renamed: Town,
) -> None:
    """`repeats` is 2: after the first sum, two that differ from it within a day."""
    assert _rounds(renamed, [9, 8, 8, 8]) == [9, 8, 8, None]
    renamed.now += 90_000
    assert _rounds(renamed, [8, 8], first=5) == [8, 8]


def test_an_adapter_may_be_tried_again_and_again_with_the_same_volunteers(renamed: Town) -> None:
    assert _rounds(renamed, [9] * 5) == [9] * 5


def test_an_owner_may_allow_no_different_cohort_at_all(tmp_path: Path) -> None:
    strict = Town(tmp_path, 9, Policy(repeats=0), version_by_round)
    assert _rounds(strict, [9, 8, 9]) == [9, None, 9]


def test_an_owners_own_minimum_counts_whatever_the_community_named(tmp_path: Path) -> None:
    """The offer may name fewer: who comes is what counts."""
    wary = Town(tmp_path, 9, Policy(fewest=9), version_by_round)
    assert _rounds(wary, [8, 9]) == [None, 9]


def _rounds(town: Town, sizes: list[int], first: int = 1) -> list[int | None]:
    """How many were summed in rounds over all nine, or over eight with another one left out."""
    found: list[int | None] = []
    for number, size in enumerate(sizes, first):
        names = [name for i, name in enumerate(town.names) if size == 9 or i != number]
        town.train(number, names)
        summed = town.sum(number, names)
        found.append(None if summed is None else len(summed.members))
    return found


def test_the_difference_of_two_rounds_tells_less_of_who_is_missing_than_a_sum_does(
    renamed: Town,
) -> None:
    """One step over all rows, one adapter, one seed: all a coordinator can choose (§19.6)."""
    renamed.train(1)
    whole = renamed.sum(1)
    renamed.train(2)
    rest = renamed.sum(2, renamed.names[1:])
    assert whole is not None
    assert rest is not None
    missing = renamed.trainers["v1"].updates[0]
    found = correlation(whole.total - rest.total, missing)
    assert found < 0.7  # 1 where the coordinator's seed decides


def test_the_same_task_never_gives_the_same_update_twice(town: Town) -> None:
    town.train(1, ["v1"])
    town.store("v1").drop()  # as when it has left
    town.restart("v1")
    town.train(1, ["v1"])
    one, other = town.trainers["v1"].updates
    assert not np.allclose(one, other)


def test_a_training_that_is_begun_again_draws_the_same(town: Town) -> None:
    """A process that died in it resumes it."""
    town.train(1, ["v1"])
    (town.store("v1").folder / "update.safetensors").unlink()
    town.restart("v1")
    town.train(1, ["v1"])
    one, other = town.trainers["v1"].updates
    np.testing.assert_array_equal(one, other)


def test_a_round_has_its_candidate_measured_and_not_whatever_the_coordinator_would_know(
    town: Town,
) -> None:
    """47 adapters of its choice would tell the losses of single rows apart."""
    town.train(3, ["v1"])
    chosen = [moved(town.start, 0.01 * i) for i in range(47)]
    for adapter in chosen:
        town.evaluate(3, adapter, "v1")
        town.evaluate(2, adapter, "v1")
    assert len(town.trainers["v1"].evaluations) == 2
