"""Several masked sums at once: a bad one is left out, whatever happens to one touches no other."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np
import pytest

from builders import train_task
from nomoat.aggregation.errors import LocalProtocolError, RemoteProtocolError
from nomoat.aggregation.methods import get
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.messages import TrainSettings, task_digest
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.aggregation.secagg.client.session import ClientSession
from nomoat.aggregation.secagg.client.stages import Volunteer
from nomoat.aggregation.secagg.masks.keys import SessionSecrets
from nomoat.aggregation.secagg.messages import TO_VOLUNTEER, Abandoned, SessionOffer
from nomoat.aggregation.secagg.parameters import Policy, RosterView, Terms
from nomoat.aggregation.secagg.transcript import work_hash
from nomoat.aggregation.sums.fixed_point import Contribution
from nomoat.aggregation.sums.norm_bound import NormBound
from nomoat.server.rounds.exchanges import Exchanges
from nomoat.server.rounds.federation import Federation
from nomoat.server.rounds.machines.interfaces import Outgoing
from nomoat.server.rounds.machines.masked_exchange import MaskedExchange
from nomoat.server.rounds.machines.parallel_exchange import ParallelExchange, far_out, mean_of
from tests.builders import SPEC, adapter

START = adapter(0)
TASK = train_task(START)
KINDS = {wire.kind_of(kind): kind for kind in (*TO_VOLUNTEER, Abandoned)}
LIMIT = 1.0


class FixedBound:
    """A bound that need not be learned."""

    def of_exchange(self, _number: int, _reply: bytes) -> NormBound:
        return NormBound(LIMIT, SPEC.size)


@dataclass
class People:
    """Volunteers with updates of the bound's size, but for those named in `times`, larger."""

    count: int
    parts: int
    times: dict[str, float] = field(default_factory=dict)
    silent: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self.names = tuple(f"vol{number:02d}" for number in range(self.count))
        self.keys = {name: SigningKey(name.encode().ljust(32, b".")) for name in self.names}
        self.roster = RosterView(b"r" * 32, {k.public: name for name, k in self.keys.items()})
        federation = Federation(
            "fedavg", 2, TrainSettings(), TASK.base_hash, b"s" * 32, min_reports=8, clip=4.0
        )
        exchanges = Exchanges(
            federation, get("fedavg"), lambda: self.roster, lambda *_: b"i" * 32, parts=self.parts
        )
        ranks = dict.fromkeys(self.names, SPEC.rank)
        opened = exchanges.of_round(TASK, START, FixedBound())(ranks, 1, b"")  # type: ignore[arg-type]
        assert isinstance(opened, MaskedExchange | ParallelExchange)
        self.exchange = opened
        self.offers: dict[str, SessionOffer] = {}
        self.clients = {name: self._client(number) for number, name in enumerate(self.names)}

    def vector(self, name: str) -> np.ndarray:
        drawn = np.random.default_rng(self.names.index(name)).normal(size=SPEC.size)
        size = self.times.get(name, 1.0) * LIMIT * 0.9
        return (size * drawn / np.linalg.norm(drawn)).astype(np.float32)

    def _client(self, number: int) -> ClientSession:
        name = self.names[number]
        manifest = get("fedavg").manifest(SPEC, 1)
        terms = Terms(
            TASK.round,
            1,
            TASK.base_hash,
            START.digest,
            manifest,
            self.roster,
            work=work_hash(task_digest(TASK), b""),
        )
        secrets = SessionSecrets(bytes([number]) * 32)
        contribution = Contribution(self.vector(name))
        return ClientSession(Volunteer(self.keys[name], terms, Policy(), (), contribution, secrets))

    def play(self) -> None:
        waiting = list(self.exchange.start(0.0))
        while waiting or not self.exchange.done:
            if not waiting:
                waiting += self.exchange.wake(self.exchange.next_deadline)
                continue
            waiting += self._answer(waiting.pop(0))

    def _answer(self, item: Outgoing) -> list[Outgoing]:
        name = item.volunteer
        message = wire.decode(item.packet, KINDS[wire.peek_kind(item.packet, "c")], "c")
        if isinstance(message, SessionOffer):
            assert name not in self.offers  # nobody is asked into a second sum
            self.offers[name] = message
        if name in self.silent or isinstance(message, Abandoned):
            return self.exchange.leave(name, "silent", 0.0) if name in self.silent else []
        answer = self.clients[name].receive(message).outgoing
        return [] if answer is None else self.exchange.receive(name, wire.encode(answer), 0.0)

    def together(self, name: str) -> set[str]:
        """Everybody who was offered the same session."""
        session = self.offers[name].session
        return {other for other, offer in self.offers.items() if offer.session == session}


def test_without_a_liar_the_mean_is_that_of_everybody() -> None:
    people = People(24, 3)
    people.play()
    assert people.exchange.failed is None
    assert people.exchange.contributors == people.names
    assert people.exchange.mean is not None
    expected = np.mean([people.vector(name) for name in people.names], axis=0)
    assert np.abs(people.exchange.mean - expected).max() < 1e-4
    assert people.exchange.evidence.left_out == ()
    assert len({offer.session for offer in people.offers.values()}) == 3
    assert all((offer.n_min, offer.n_each) == (8, 8) for offer in people.offers.values())


@pytest.mark.parametrize("times", [12.0, 6.0])  # beyond the bound; only far above the others
def test_the_sum_a_liar_is_in_is_left_out_and_everybody_else_counts(times: float) -> None:
    people = People(24, 3, {"vol05": times})
    people.play()
    with_it = people.together("vol05")
    assert set(people.exchange.contributors) == set(people.names) - with_it
    assert [set(members) for members in people.exchange.evidence.left_out] == [with_it]
    assert people.exchange.lost.keys() == with_it
    others = [people.vector(name) for name in people.exchange.contributors]
    assert people.exchange.mean is not None
    assert np.abs(people.exchange.mean - np.mean(others, axis=0)).max() < 1e-4


def test_a_part_that_too_few_are_left_of_costs_the_others_nothing() -> None:
    people = People(24, 3, silent=frozenset({"vol00"}))
    people.play()
    gone = people.together("vol00")
    assert set(people.exchange.contributors) == set(people.names) - gone
    assert people.exchange.lost.keys() == gone
    assert people.exchange.evidence.left_out == ()  # no sum, so nothing against anybody
    assert [part.failed for part in people.exchange.evidence.parts].count(True) == 1


def test_a_round_all_of_whose_sums_are_bad_is_thrown_away_with_its_evidence() -> None:
    people = People(16, 2, dict.fromkeys([f"vol{n:02d}" for n in range(16)], 12.0))
    people.play()
    assert people.exchange.mean is None
    assert re.search("norm", str(people.exchange.failed))
    assert sorted(map(len, people.exchange.evidence.left_out)) == [8, 8]


def test_too_few_for_two_sums_are_in_one() -> None:
    assert isinstance(People(15, 3).exchange, MaskedExchange)


def test_an_answer_of_a_stranger_or_to_a_part_that_is_over_changes_nothing() -> None:
    people = People(24, 3)
    assert people.exchange.receive("stranger", wire.encode(Abandoned("x")), 0.0) == []
    people.play()
    before = people.exchange.contributors
    assert people.exchange.receive("vol00", wire.encode(Abandoned("x")), 0.0) == []
    assert people.exchange.leave("vol00", "gone", 0.0) == []
    assert people.exchange.contributors == before


def test_an_answer_that_breaks_the_protocol_names_its_sender_in_its_part_alone() -> None:
    people = People(24, 3)
    people.exchange.start(0.0)
    with pytest.raises(RemoteProtocolError, match="vol03"):
        people.exchange.receive("vol03", wire.encode(Abandoned("x")), 0.0)


def test_a_volunteer_in_two_parts_is_a_mistake_of_ours() -> None:
    one = People(15, 3).exchange
    assert isinstance(one, MaskedExchange)
    with pytest.raises(LocalProtocolError, match="two sums"):
        ParallelExchange({("a", "b"): one, ("b", "c"): one}, lambda _: None, NormBound(1.0, 1))


def test_only_what_is_far_above_the_middle_of_three_or_more_is_far_out() -> None:
    assert far_out({0: 1.0, 1: 9.0}) == frozenset()
    assert far_out({0: 1.0, 1: 1.3, 2: 1.1}) == frozenset()
    assert far_out({0: 1.0, 1: 1.7, 2: 1.0}) == {1}


def test_parts_of_different_sizes_count_by_their_members() -> None:
    means = [np.full(2, 1.0, np.float32), np.full(2, 4.0, np.float32)]
    assert mean_of(means, [2, 1]).tolist() == [2.0, 2.0]
