"""For any sequence of messages and of signatures, no update is in two completed sums.

The coordinator holds the community's key: it signs versions and ends of rounds as it likes, shows
one volunteer another chain, and announces, sums, withholds and overtakes in any order.
"""

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
from tests.hostile.coordinator import SPEC, Lies
from tests.hostile.signed_chain import Chain, SignedTown

COUNT = 4
NAMES = [f"v{i + 1}" for i in range(COUNT)]
some = st.sampled_from([NAMES, NAMES, NAMES[1:], NAMES[:-1]])
perhaps = st.sampled_from([[], [], ["v2"], ["v1", "v3"]])
phases = st.sampled_from(["checks", "masked", "signatures", "reveals"])
back = st.sampled_from([0, 0, 0, 1])  # rounds before the present one


class SigningCoordinator(RuleBasedStateMachine):
    """Its volunteers follow the signed lineage as a deployment's do."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.town = SignedTown(self.folder, COUNT, Policy(3, allow_weak=True))
        self.standing: dict[int, Adapter] = {1: self.town.start}  # round → what it begins with
        self.number = 1
        self.sums: list[frozenset[tuple[str, int]]] = []

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @rule(names=some, before=back, changed=st.booleans())
    def announce(self, names: list[str], before: int, changed: bool) -> None:
        number = max(1, self.number - before)
        start = self.standing[number]
        if changed:  # by one value
            values = start.vector.copy()
            values[0] += np.float32(1e-6)
            start = Adapter(SPEC, values)
        self.town.train(number, names, start=start)

    @rule(names=some, before=back, phase=phases, silent=perhaps, withheld=perhaps)
    def sum(
        self, names: list[str], before: int, phase: str, silent: list[str], withheld: list[str]
    ) -> None:
        number = max(1, self.number - before)
        lies = Lies(silenced={phase: silent}, withheld={phase: withheld})
        found = self.town.sum(number, names, lies, start=self.standing[number])
        if found is not None:
            updates = self.town.trainers
            self.sums.append(frozenset((n, len(updates[n].updates)) for n in found.members))

    @rule(names=some, detour=st.sampled_from(["", "restart", "end", "overtake", "chain"]))
    def begin_a_round_and_sum_it_twice(self, names: list[str], detour: str) -> None:
        self.announce(NAMES, 0, changed=False)
        self.sum(NAMES, 0, "keys", [], [])
        if detour == "restart":
            for name in NAMES:
                self.town.restart(name)
        elif detour == "end":
            self.end(committed=True)
        elif detour == "overtake":
            self.town.overtake(self.number + 1, start=self.standing[self.number])
        elif detour == "chain":
            self.show_another_chain("v2")
        before = 1 if detour == "end" else 0
        self.announce(names, before, changed=True)
        self.sum(names, before, "keys", [], [])

    @rule(committed=st.booleans())
    def end(self, committed: bool) -> None:
        start = self.standing[self.number]
        if committed:
            start = Adapter(SPEC, start.vector + np.float32(0.01 * self.number))
            self.town.chain.version(start, self.number)
        else:
            self.town.chain.end(self.number)
        self.number += 1
        self.standing[self.number] = start

    @rule(name=st.sampled_from(NAMES))
    def show_another_chain(self, name: str) -> None:
        other = Chain(list(self.town.chain.records[:1]))
        other.version(Adapter(SPEC, self.town.start.vector + np.float32(0.5)), self.number)
        self.town.shown[name] = other

    @rule()
    def show_all_the_same(self) -> None:
        self.town.shown.clear()

    @rule(name=st.sampled_from(NAMES))
    def restart(self, name: str) -> None:
        self.town.restart(name)

    @rule(name=st.sampled_from(NAMES))
    def lose_what_was_pinned(self, name: str) -> None:
        (self.folder / name / "lineage.rec").unlink(missing_ok=True)
        self.town.restart(name)

    @invariant()
    def no_update_is_in_two_sums(self) -> None:
        counted = Counter(update for members in self.sums for update in members)
        assert not counted or max(counted.values()) == 1


TestAnySignedSequence = SigningCoordinator.TestCase
TestAnySignedSequence.settings = settings(
    max_examples=12,
    stateful_step_count=8,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
