"""A volunteer that lies about losses over a real grid: no round is lost to it for long."""

from __future__ import annotations

import math
from concurrent.futures import Future

import pytest
from flwr.app import Message

from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.aggregation.protocol.messages import DIVERGED, Decline
from tests.server.rounds.test_coordinator import (
    TOKENS,
    Memory,
    Twist,
    federation,
    forged,
    reply,
    run,
)

ROUNDS = 6


def says_diverged(_name: str, _answer: Message, message: Message) -> Message:
    return reply(message, wire.encode(Decline(int(message.metadata.group_id), DIVERGED)))


LIES: dict[str, Twist] = {
    "high": forged(1, 90.0),
    "low": forged(1, 1e-6),
    "not a number": forged(1, math.nan),
    "infinite": forged(1, math.inf),
    "says that it diverged": says_diverged,
}


def from_round_two(lie: Twist) -> Twist:
    """Who has lied all along differs from itself in nothing."""

    def twist(name: str, answer: Message, message: Message) -> Message:
        begun = int(message.metadata.group_id) >= 2
        return lie(name, answer, message) if begun else answer

    return twist


def on_the_split(adapter: Adapter) -> Future[float]:
    found: Future[float] = Future()
    found.set_result(3.0 - float(adapter.vector.mean()))
    return found


def play(lie: str, names: tuple[str, ...], *, split: bool) -> Memory:
    liar = {(names[-1], "evaluate.heldout"): from_round_two(LIES[lie])}
    settings = federation(rounds=ROUNDS, tolerance=None)
    return run(liar, settings, measure=on_the_split if split else None, names=names)[0]


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("lie", LIES)
def test_one_liar_of_four_loses_nobody_a_round_and_is_heard_no_more(lie: str, split: bool) -> None:
    rounds = play(lie, tuple(TOKENS), split=split).records[1:]
    assert all(record.committed for record in rounds)
    noticed = {name for record in rounds for name in (*record.misfits, *record.refused)}
    assert noticed == {"dee"}


@pytest.mark.parametrize("lie", LIES)
def test_one_liar_of_two_loses_two_rounds_at_most_where_there_is_a_split(lie: str) -> None:
    rounds = play(lie, ("ada", "dee"), split=True).records[1:]
    assert {record.round for record in rounds if not record.committed} in (set(), {2, 3})
    assert all(math.isfinite(loss) for record in rounds for loss in record.losses.values())
