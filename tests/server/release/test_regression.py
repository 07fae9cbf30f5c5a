"""Versions that are together worse are gone back from once, and a community never swings."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nomoat.server.release.regression import (
    MeasuredVersion,
    Regression,
    RollbackRule,
    regressed,
)
from nomoat.server.rounds.acceptance import HeldOutLosses

RULE = RollbackRule(3, 0.01)


def chain(*losses: float) -> list[MeasuredVersion]:
    """Versions from 0 on with these losses on the coordinator's rows."""
    return [
        MeasuredVersion(n, bytes([n]), HeldOutLosses({}, loss)) for n, loss in enumerate(losses)
    ]


def changed(versions: list[MeasuredVersion], number: int, **how: bool) -> list[MeasuredVersion]:
    return [replace(one, **how) if one.number == number else one for one in versions]


@pytest.mark.parametrize(
    ("losses", "to"),
    [
        ((3.0, 2.5, 2.6, 2.6, 2.6), 1),
        ((3.0, 2.5, 2.6, 2.6), None),  # two are not enough
        ((3.0, 2.5, 2.6, 2.51, 2.6), None),  # one was as good
        ((3.0, 2.5, 2.6, 2.51, 2.6, 2.6, 2.6), 1),  # three in a row
        ((3.0, 2.5, 2.6, 2.6, 2.4), None),  # it got better after all
        ((3.0, 2.5, 2.51, 2.52, 2.52), None),  # within the rise
        ((), None),
    ],
)
def test_as_many_in_a_row_as_the_rule_says_are_gone_back_from(
    losses: tuple[float, ...], to: int | None
) -> None:
    found = regressed(chain(*losses), RULE)
    assert (None if found is None else found.to) == to
    assert regressed(chain(*losses), RollbackRule(0, 0.01)) is None


def test_what_it_finds_names_all_that_is_undone_and_by_how_much_the_last_is_worse() -> None:
    found = regressed(chain(3.0, 2.0, 2.1, 2.1, 2.2), RULE)
    assert found == Regression(1, (2, 3, 4), pytest.approx(0.1))


def test_without_rows_of_the_coordinator_the_median_volunteer_decides() -> None:
    def version(number: int, *losses: float) -> MeasuredVersion:
        named = {f"v{i}": loss for i, loss in enumerate(losses)}
        return MeasuredVersion(number, bytes([number]), HeldOutLosses(named))

    worse = [version(n, 2.1, 3.15, 0.1) for n in (1, 2, 3)]  # and one that lies
    found = regressed([version(0, 2.0, 3.0, 4.0), *worse], RULE)
    assert found is not None
    assert found.to == 0
    strangers = [replace(each, losses=HeldOutLosses({"new": 9.0})) for each in worse]
    assert regressed([version(0, 2.0, 3.0, 4.0), *strangers], RULE) is None


def test_a_person_s_word_is_where_the_rule_begins_anew_and_what_is_barred_is_no_goal() -> None:
    bad = chain(3.0, 2.5, 2.7, 2.7, 2.7)
    assert regressed(changed(bad, 3, by_person=True), RULE) is None
    assert regressed(changed(bad, 0, by_person=True), RULE) is not None
    again = chain(3.0, 2.5, 2.4, 2.7, 2.7, 2.7)
    found = regressed(changed(again, 2, barred=True), RULE)
    assert found is not None
    assert found.to == 1


def test_the_same_version_is_gone_back_to_again_only_after_twice_as_many() -> None:
    versions, goals = chain(3.0, 2.0), []
    for _ in range(40):
        number = len(versions)
        versions.append(MeasuredVersion(number, bytes([number]), HeldOutLosses({}, 2.5)))
        found = regressed(versions, RULE)
        if found is not None:
            goals.append(found)
            good = versions[found.to]
            versions.append(replace(good, number=number + 1, by_rule=True))
    assert [len(goal.worse) for goal in goals] == [3, 6, 12]
    assert {versions[goal.to].adapter for goal in goals} == {b"\1"}


@given(st.lists(st.floats(1.0, 4.0), max_size=60), st.integers(1, 5), st.floats(0, 0.2))
def test_whatever_is_measured_it_goes_back_to_the_best_alone_and_never_swings(
    losses: list[float], after: int, rise: float
) -> None:
    rule, versions = RollbackRule(after, rise), chain(3.0)
    since, back = 0, dict[bytes, int]()
    for loss in losses:
        number = len(versions)
        versions.append(MeasuredVersion(number, number.to_bytes(2), HeldOutLosses({}, loss)))
        since += 1
        found = regressed(versions, rule)
        if found is None:
            continue
        good = versions[found.to]
        of = [one.losses.evaluation or 0.0 for one in versions]
        assert good.losses.evaluation == min(of)
        assert all(of[n] > min(of) * (1 + rise) for n in found.worse[-after:])
        assert since >= after << back.get(good.adapter, 0)
        back[good.adapter] = back.get(good.adapter, 0) + 1
        versions.append(replace(good, number=number + 1, by_rule=True))
        assert regressed(versions, rule) is None  # done
        since = 0
