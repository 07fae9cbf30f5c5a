"""A training whose round has ended is given up, and no other."""

from __future__ import annotations

from dataclasses import replace

import pytest

from builders import adapter
from nomoat.aggregation.errors import Unreachable
from nomoat.aggregation.protocol.round_end import Lineage
from nomoat.client.volunteer.status import VolunteerStatus
from nomoat.client.volunteer.training_watch import EVERY, TrainingWatch
from tests.hostile.signed_chain import Chain

TRAINS = VolunteerStatus(1, "working", "train.local", 0.0, answered=5)


class Coordinator:
    """The end of rounds as it is signed, and how often a training was given up."""

    def __init__(self) -> None:
        self.chain, self.ended, self.away = Chain(), 0, False
        self.chain.version(adapter(1), 0)
        self.watch = TrainingWatch(self.lineage, self.asked, self.give_up)

    def lineage(self) -> Lineage:
        assert self.chain.ended is not None
        return Lineage(self.chain.records[-1], self.chain.ended)

    def asked(self) -> Lineage:
        if self.away:
            raise Unreachable("away")
        return self.lineage()

    def give_up(self) -> None:
        self.ended += 1

    def look(self, status: VolunteerStatus = TRAINS, times: int = EVERY) -> int:
        for _ in range(times):
            self.watch.look(status)
        return self.ended


@pytest.fixture
def coordinator() -> Coordinator:
    return Coordinator()


def test_a_training_is_given_up_once_its_round_has_ended(coordinator: Coordinator) -> None:
    assert coordinator.look(times=20) == 0
    coordinator.away = True
    coordinator.chain.end(1)
    assert coordinator.look() == 0
    coordinator.away = False
    assert coordinator.look() == 1


def test_the_training_of_the_next_round_is_not(coordinator: Coordinator) -> None:
    coordinator.look()
    coordinator.chain.end(1)
    assert coordinator.look(replace(TRAINS, answered=6), times=20) == 0


@pytest.mark.parametrize("doing", ["waiting", "paused"])
def test_nothing_is_given_up_while_nothing_is_trained(coordinator: Coordinator, doing: str) -> None:
    coordinator.look()
    coordinator.chain.end(1)
    assert coordinator.look(replace(TRAINS, doing=doing), times=20) == 0
