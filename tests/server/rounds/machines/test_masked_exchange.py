"""A masked exchange goes on without those who have left since they said that they were ready."""

from __future__ import annotations

import pytest

from builders import train_task
from nomoat.aggregation.methods import get
from nomoat.aggregation.protocol.messages import TrainSettings
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.aggregation.secagg.parameters import RosterView
from nomoat.server.rounds.exchanges import Exchanges
from nomoat.server.rounds.federation import Federation
from nomoat.server.rounds.machines.interfaces import Exchange
from tests.builders import SPEC, adapter

NAMES = tuple(f"vol{number}" for number in range(10))
IDENTITIES = {SigningKey(bytes([n + 1]) * 32).public: name for n, name in enumerate(NAMES)}
START = adapter(0)


def opened(still_members: tuple[str, ...], reply: bytes = b"") -> Exchange:
    """An exchange over NAMES after the others have left."""
    approved = {key: name for key, name in IDENTITIES.items() if name in still_members}
    federation = Federation(
        "fedavg", 2, TrainSettings(), b"b" * 32, b"s" * 32, min_reports=8, aggregate_deadline_s=60
    )
    exchanges = Exchanges(
        federation, get("fedavg"), lambda: RosterView(b"r" * 32, approved), lambda *_: b"i" * 32
    )
    ranks = dict.fromkeys(NAMES, SPEC.rank)
    return exchanges.of_round(train_task(START), START)(ranks, 2 if reply else 1, reply)


@pytest.mark.parametrize("reply", [b"", b"sum"], ids=["first exchange", "a later one"])
def test_whoever_left_before_the_exchange_is_not_asked(reply: bytes) -> None:
    exchange = opened(NAMES[:-1], reply)
    assert [message.volunteer for message in exchange.start(0.0)] == sorted(NAMES[:-1])
    assert exchange.failed is None


@pytest.mark.parametrize("left", [0, 5])
def test_an_exchange_that_too_few_are_left_for_is_abandoned(left: int) -> None:
    exchange = opened(NAMES[:left])
    exchange.start(0.0)
    exchange.wake(1e9)
    assert exchange.done
    assert "abandoned" in str(exchange.failed)
