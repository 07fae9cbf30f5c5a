"""For any sequence of a coordinator's messages, no update is in two completed sums."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.aggregation.secagg.parameters import Policy
from nomoat.client.round.training_origin import version_by_round
from tests.hostile.coordinator import SPEC, Lies, Town

COUNT = 4
NAMES = [f"v{i + 1}" for i in range(COUNT)]
# Lies that matter are likely: all but one of the volunteers, the present round or the one before.
some = st.sampled_from([NAMES, NAMES, NAMES[1:], NAMES[:-1]])
perhaps = st.sampled_from([[], [], ["v2"], ["v1", "v3"], NAMES])
rounds = st.integers(1, 2)
phases = st.sampled_from(["keys", "checks", "masked", "signatures", "reveals"])


class LyingCoordinator(RuleBasedStateMachine):
    """Announces, sums, withholds, overtakes, restarts and loses diaries in any order.

    The volunteers take each round for a version, the weakest rule there is.
    """

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        policy = Policy(min_participants=3, allow_weak=True)
        self.town = Town(self.folder, COUNT, policy, version_by_round)
        self.sums: list[tuple[int, frozenset[tuple[str, int]]]] = []

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @rule(number=rounds, names=some)
    def announce(self, number: int, names: list[str]) -> None:
        self.town.train(number, names, start=_start(self.town, number))

    @rule(number=rounds)
    def overtake(self, number: int) -> None:
        self.town.overtake(number, start=_start(self.town, number))

    @rule(number=rounds, names=some, phase=phases, silent=perhaps, withheld=perhaps)
    def sum(
        self, number: int, names: list[str], phase: str, silent: list[str], withheld: list[str]
    ) -> None:
        lies = Lies(silenced={phase: silent}, withheld={phase: withheld})
        found = self.town.sum(number, names, lies, start=_start(self.town, number))
        if found is not None:
            updates = {(n, len(self.town.trainers[n].updates)) for n in found.members}
            self.sums.append((number, frozenset(updates)))

    @rule(name=st.sampled_from(NAMES))
    def restart(self, name: str) -> None:
        self.town.restart(name)

    @rule(name=st.sampled_from(NAMES))
    def lose_the_diary(self, name: str) -> None:
        (self.folder / name / "marks.jsonl").write_bytes(b"")
        self.town.restart(name)

    @rule(hours=st.sampled_from([1, 30]))
    def wait(self, hours: int) -> None:
        self.town.now += 3600 * hours

    @invariant()
    def no_update_is_in_two_sums(self) -> None:
        counted = Counter(update for _, members in self.sums for update in members)
        assert not counted or max(counted.values()) == 1

    @invariant()
    def no_sum_is_over_fewer_than_survive_the_smallest_session(self) -> None:
        assert all(len(members) >= 2 for _, members in self.sums)


def _start(town: Town, number: int) -> Adapter:
    return Adapter(SPEC, town.start.vector + np.float32(0.01 * number))


TestAnySequence = LyingCoordinator.TestCase
TestAnySequence.settings = settings(
    max_examples=40,
    stateful_step_count=12,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
