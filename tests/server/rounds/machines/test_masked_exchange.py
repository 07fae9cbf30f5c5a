"""A masked exchange goes on without those who have left since they said that they were ready."""

from __future__ import annotations

import numpy as np
import pytest

from builders import train_task
from nomoat.aggregation.methods import get
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.messages import TrainSettings
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.aggregation.secagg.audit.terms import audited
from nomoat.aggregation.secagg.client.session import ClientSession
from nomoat.aggregation.secagg.client.stages import Volunteer
from nomoat.aggregation.secagg.masks.keys import SessionSecrets
from nomoat.aggregation.secagg.messages import TO_VOLUNTEER
from nomoat.aggregation.secagg.parameters import Policy, RosterView, Terms, propose
from nomoat.aggregation.sums.fixed_point import Contribution
from nomoat.server.rounds.exchanges import Exchanges
from nomoat.server.rounds.federation import Federation
from nomoat.server.rounds.machines.interfaces import Exchange
from nomoat.server.rounds.machines.masked_exchange import MaskedExchange, MaskedSetup
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


BOUND = 1.0


def audited_exchange(large: str) -> tuple[MaskedExchange, dict[str, ClientSession]]:
    """An audited exchange over eight volunteers, one of whom sends four times the bound."""
    keys = {name: SigningKey(bytes([n + 1]) * 32) for n, name in enumerate(NAMES[:8])}
    roster = RosterView(b"r" * 32, {key.public: name for name, key in keys.items()})
    manifest = get("fedavg").manifest(SPEC, 1)
    terms = Terms(1, 1, b"b" * 32, START.digest, manifest, roster)
    clips = (1.0,) * len(manifest.tensors)
    plain = propose(b"i" * 32, terms, clips, (8, 8), clip_l2=BOUND)
    setup = MaskedSetup(audited(plain, b"q" * 32), manifest, roster, audit_seed=b"q" * 32)
    clients = {}
    for n, (name, key) in enumerate(keys.items()):
        vector = np.random.default_rng(n).normal(size=SPEC.size)
        vector *= (4.0 if name == large else 0.9) * BOUND / np.linalg.norm(vector)
        contribution = Contribution(vector.astype(np.float32))
        policy, secrets = Policy(audit_words=64), SessionSecrets(bytes([n]) * 32)
        clients[name] = ClientSession(Volunteer(key, terms, policy, (), contribution, secrets))
    return MaskedExchange(tuple(keys), setup), clients


def test_who_is_too_large_is_no_contributor_and_named_in_the_rounds_evidence() -> None:
    exchange, clients = audited_exchange("vol3")
    waiting = list(exchange.start(0.0))
    while waiting:
        item = waiting.pop(0)
        kind = next(k for k in TO_VOLUNTEER if wire.kind_of(k) == wire.peek_kind(item.packet, "c"))
        answer = clients[item.volunteer].receive(wire.decode(item.packet, kind, "c")).outgoing
        if answer is not None:
            waiting += exchange.receive(item.volunteer, wire.encode(answer), 0.0)
    assert exchange.failed is None
    assert exchange.mean is not None
    assert exchange.contributors == tuple(name for name in NAMES[:8] if name != "vol3")
    assert "times the bound" in exchange.evidence.wrong["vol3"]
    assert "times the bound" in exchange.lost["vol3"]
    assert not exchange.evidence.failed
