"""Members enter three lost sums from one adapter; where they come and go the search goes on."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from nomoat.aggregation.errors import RemoteProtocolError
from nomoat.aggregation.protocol.messages import TrainSettings
from nomoat.aggregation.secagg.diary import Mark, Place, cohort_digest, permitted
from nomoat.server.rounds.cohort import REPEATS
from nomoat.server.rounds.federation import Federation
from nomoat.server.rounds.records import RoundRecord
from nomoat.server.rounds.suspicion.asking import asked_of
from nomoat.server.rounds.suspicion.cohorts import suspicion_of
from nomoat.server.rounds.suspicion.parts import parts_of
from nomoat.server.rounds.suspicion.posterior import named

LEAST = 8
NAMES = tuple(f"v{i:02d}" for i in range(24))
LIAR = "v07"
MASKED = Federation("fedavg", 99, TrainSettings(), b"b" * 32, b"s" * 32, min_reports=LEAST)
SEED = b"s" * 32
HERE = "aa"


def lost(number: int, members: Collection[str]) -> RoundRecord:
    cohort = tuple(sorted(members))
    return RoundRecord(number, False, "", cohort, cohort, adapter=HERE)


TWO_COHORTS = [lost(1, NAMES[:-2]), lost(2, NAMES[1:])]


@dataclass
class MembersWithDiaries:
    """Rounds among members with diaries of their own, of whom one in ten is away each time."""

    most_sums: int
    seed: int
    records: list[RoundRecord] = field(default_factory=list)
    adapter: bytes = bytes(32)
    suspected: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.diaries: dict[str, list[Mark]] = {name: [] for name in NAMES}

    def play(self) -> None:
        online = frozenset(name for name in NAMES if self.rng.random() >= 0.1)
        drawn = self.rng.bytes(32)
        asked = asked_of(self.records, self.adapter.hex(), online, MASKED, self.most_sums, drawn)
        self.suspected = asked.suspected
        parts = parts_of(asked.cohort, asked.sums, LEAST, self.rng.bytes(32), asked.suspected)
        sums = [part for part in parts if self.summed(part)]
        bad = [part for part in sums if LIAR in part]
        good = tuple(name for part in sums if part not in bad for name in part)
        left_out = {name: place for place, part in enumerate(bad) for name in part}
        if len(parts) == 1:
            good, left_out = tuple(name for part in sums for name in part), {}
        kept = bool(good) and LIAR not in good
        self.adapter = hashlib.sha256(self.adapter).digest() if kept else self.adapter
        self.records.append(
            RoundRecord(
                len(self.records) + 1, kept, "", asked.cohort, good,
                adapter=self.adapter.hex(), sums=len(parts), left_out=left_out,
            )
        )  # fmt: skip

    def summed(self, part: Collection[str]) -> bool:
        """Tell whether all of them enter this sum (§19.4); those who would have are marked."""
        number = len(self.records) + 1
        place = Place(number, 1, number.to_bytes(32, "big"), self.adapter, now=60 * number)
        enter = [name for name in part if self.enters(name, part, place)]
        seen = cohort_digest(name.encode() for name in part) if len(enter) == len(part) else b""
        for name in enter:
            mark = Mark("masked", b"", number, 1, place.version, self.adapter, seen, 60 * number)
            self.diaries[name].append(mark)
        return bool(seen)

    def enters(self, name: str, part: Collection[str], place: Place) -> bool:
        try:
            rule = permitted(place, self.diaries[name], REPEATS)
            rule.check(other.encode() for other in part)
        except RemoteProtocolError:
            return False
        return True


@pytest.mark.parametrize(("most_sums", "within"), [(3, 14), (1, 34)])
def test_a_liar_is_named_though_members_come_and_go_and_no_round_is_refused_by_them(
    most_sums: int, within: int
) -> None:
    community = MembersWithDiaries(most_sums, seed=1)
    while not named(community.suspected):
        assert len(community.records) < within
        community.play()
    assert named(community.suspected) == {LIAR}
    assert all(record.summed for record in community.records)
    if most_sums > 1:  # those with one sum may be lost, none that has several
        assert all(record.committed for record in community.records if record.sums > 1)


def test_the_last_sum_that_members_enter_is_over_half_of_them_and_the_others_have_theirs_left() -> (
    None
):
    third = asked_of(TWO_COHORTS, HERE, frozenset(NAMES), MASKED, 1, SEED)
    assert LEAST <= len(third.cohort) <= len(NAMES) / 2
    assert third.evaluators == NAMES
    records = [*TWO_COHORTS, lost(3, third.cohort)]
    fourth = asked_of(records, HERE, frozenset(NAMES), MASKED, 1, SEED)
    assert not {*fourth.cohort} & {*third.cohort} & {*NAMES[1:-2]}


def test_where_half_of_them_are_enough_for_several_sums_there_are_several_at_once() -> None:
    many = [f"v{i:02d}" for i in range(50)]
    records = [lost(1, many[:-2]), lost(2, many[1:])]
    third = asked_of(records, HERE, frozenset(many), MASKED, 8, SEED)
    assert (len(third.cohort), third.sums) == (25, 3)


@pytest.mark.parametrize(
    "records",
    [[], TWO_COHORTS[:1], [lost(1, NAMES), lost(2, NAMES)]],
    ids=["none", "one", "one-cohort-twice"],
)
def test_as_long_as_members_enter_more_everybody_is_asked(records: list[RoundRecord]) -> None:
    found = asked_of(records, HERE, frozenset(NAMES), MASKED, 3, SEED)
    assert (found.cohort, found.sums) == (NAMES, 1)


def test_sums_from_another_adapter_or_without_masks_use_nothing_up() -> None:
    there = frozenset(NAMES)
    assert asked_of(TWO_COHORTS, "bb", there, MASKED, 3, SEED).cohort == NAMES
    plain = replace(MASKED, secure=False)
    assert asked_of(TWO_COHORTS, HERE, there, plain, 1, SEED).cohort == NAMES


def test_a_sum_that_was_left_out_counts_as_one_that_failed() -> None:
    kept = RoundRecord(3, True, "", NAMES, NAMES[8:], sums=3, left_out=dict.fromkeys(NAMES[:8], 0))
    assert suspicion_of([*TWO_COHORTS, kept]).searching
    well = RoundRecord(3, True, "", NAMES, NAMES)
    assert not suspicion_of([*TWO_COHORTS, well]).searching
