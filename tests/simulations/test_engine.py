"""A simulation sends what a deployment sends: signed both ways, to one volunteer, once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

from builders import evaluate_task
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.adapter import Adapter, AdapterSpec, LayerSpec
from nomoat.aggregation.protocol.messages import (
    Decline,
)
from nomoat.client.round.app import RequestHandler
from nomoat.client.round.session import Reason, RoundSession, TaskLimits
from nomoat.flower.packets import packet_of, records_of, to_message
from nomoat.flower.seals import sealed_parts
from nomoat.simulations.engine import all_volunteers, sealed_grid
from nomoat.simulations.network.in_process_grid import InProcessGrid
from nomoat.simulations.pooled_trainer import NoUpdateStore
from nomoat.simulations.scenario import Scenario
from nomoat.simulations.seeded_community import SeededCommunity

NAMES = ("ada", "ben")
BASE, OTHER_BASE = b"b" * 32, b"o" * 32
SPEC = AdapterSpec((LayerSpec("q", 2, 2, 1),), 1, 2.0, False, ("q",))
# About another base: a volunteer declines it without any work.
TASK = evaluate_task(Adapter(SPEC, np.zeros(SPEC.size, np.float32)), base_hash=OTHER_BASE)


def request() -> Message:
    packet = wire.encode(TASK)
    return to_message(wire.peek_kind(packet, "us"), records_of(packet), 1, "1")


@pytest.fixture
def community() -> SeededCommunity:
    return SeededCommunity.of(Scenario(), NAMES)


@pytest.fixture
def passing() -> list[Message]:
    return []


@pytest.fixture
def grid(community: SeededCommunity, passing: list[Message]) -> Iterator[InProcessGrid]:
    """A simulation's grid, whose messages can be looked at as they arrive and as they leave."""
    sessions = {name: RoundSession(name, BASE, TaskLimits()) for name in NAMES}
    nobody: Any = None
    handlers = {n: RequestHandler(one, nobody, NoUpdateStore()) for n, one in sessions.items()}
    app = all_volunteers(handlers, community, BASE)

    def seen(message: Message, context: Any) -> Message:
        passing.append(message)
        answer = app(message, context)
        passing.append(answer)
        return answer

    with contextlib.closing(InProcessGrid(seen, NAMES, 2)) as made:
        yield made


def test_a_message_is_sealed_both_ways_and_the_round_sees_no_seal(
    grid: InProcessGrid, community: SeededCommunity, passing: list[Message]
) -> None:
    sealed = sealed_grid(grid, community, BASE)
    (reply,) = sealed.send_and_receive([request()])
    answer = wire.decode(packet_of(reply, "ada"), Decline, "ada")
    assert answer.reason == Reason.OTHER_BASE.value
    assert "seal" in sealed_parts(passing[1])
    assert "seal" not in sealed_parts(reply)


def test_a_simulated_volunteer_answers_nothing_that_is_not_sealed(grid: InProcessGrid) -> None:
    (reply,) = grid.send_and_receive([request()])
    assert reply.has_error()
    assert reply.error.reason == "RemoteProtocolError"


def test_a_reply_under_another_members_seal_is_refused(
    grid: InProcessGrid, community: SeededCommunity
) -> None:
    exchanged = {"ada": community.keys["ben"], "ben": community.keys["ada"]}
    community.keys.update(exchanged)  # whose keys the coordinator thinks are whose
    (reply,) = sealed_grid(grid, community, BASE).send_and_receive([request()])
    assert reply.has_error()
