"""A masked exchange meets every message, departure and hour in every phase."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest

from builders import adapter, evaluate_task, train_task
from nomoat.aggregation.errors import RemoteProtocolError
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.messages import (
    Decline,
    Evaluation,
    ExchangeReply,
    Noted,
    Ready,
    Report,
    ReportRequest,
)
from nomoat.aggregation.secagg.messages import TO_COORDINATOR, TO_VOLUNTEER, Abandoned
from nomoat.aggregation.secagg.server.collector import ServerPhase
from nomoat.aggregation.secagg.server.session import ACCEPTS
from nomoat.server.rounds.machines.interfaces import Outgoing
from nomoat.server.rounds.machines.masked_exchange import GRACE_S, MaskedExchange, MaskedSetup
from nomoat.server.rounds.machines.patience import Waiting
from tests.aggregation.secagg.conftest import Federation

WIDE_S = 100.0
BOUND = 1e3  # on the L2 norm: honest ones are far below
ORDER = [phase for phase in ServerPhase if phase is not ServerPhase.ABANDONED]
COLLECTING = [phase for phase in ServerPhase if phase in ACCEPTS]
FIRST = "volunteer 0"


class SecondExchange(Federation):
    """Volunteers in the second exchange of a round, the first seen to its end."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.run()
        self.entropy = [self.rng.bytes(32) for _ in self.ids]
        self.terms = replace(self.terms, exchange=2)
        self.offer = replace(self.offer, exchange=2, session=self.rng.bytes(32))
        self.clients = [self.client(i) for i in range(self.count)]


class Play:
    """An exchange over honest volunteers, of whom `n_min` are enough: a round's first, or second.

    Only a second one has something to hand out before it opens, and is NEW for a while.
    """

    def __init__(self, count: int = 4, n_min: int = 3, second: bool = False) -> None:
        self.people = (
            SecondExchange(count, n_min=n_min)
            if second
            else Federation(count, n_min=n_min, bound=BOUND)  # audited: it has every phase
        )
        self.names = tuple(self.people.names.values())
        setup = MaskedSetup(
            self.people.offer,
            self.people.manifest,
            self.people.roster,
            b"sum" if second else b"",
            Waiting(WIDE_S),
            audit_seed=self.people.audit_seed,
        )
        self.exchange = MaskedExchange(self.names, setup)
        self.open = self.exchange.start(0.0)  # what is on its way to whom

    @property
    def phase(self) -> ServerPhase:
        return self.exchange._session.phase

    def answer(self, item: Outgoing) -> wire.Packet | None:
        """What the honest volunteer says to that; None: nothing more."""
        kind = wire.peek_kind(item.packet, "coordinator")
        if kind == wire.kind_of(ExchangeReply):
            return wire.encode(Noted(self.people.offer.round))
        number = self.names.index(item.volunteer)
        message = wire.decode(item.packet, KINDS[kind], "coordinator")
        reply = self.people.clients[number].receive(message).outgoing
        return None if reply is None else wire.encode(reply)

    @classmethod
    def at(cls, phase: ServerPhase, count: int = 4) -> Play:
        """An exchange that everybody has answered in until it is in `phase`, to be gone on with."""
        play = cls(count, second=phase is ServerPhase.NEW)
        play._to(phase)
        return play

    def _to(self, phase: ServerPhase) -> None:
        if phase is ServerPhase.ABANDONED:
            for name in self.names:
                self.exchange.leave(name, "gone", 0.0)
        for _ in ServerPhase:
            if self.phase is not phase:
                self.everybody()
        assert self.phase is phase

    def everybody(self) -> None:
        asked, self.open = self.open, []
        for item in asked:
            try:
                packet = self.answer(item)
            except RemoteProtocolError:  # it will not: the others are not those of the sum before
                self.open += self.exchange.leave(item.volunteer, "refuses", 0.0)
                continue
            if packet is not None:
                self.open += self.exchange.receive(item.volunteer, packet, 0.0)


KINDS = {wire.kind_of(kind): kind for kind in (*TO_VOLUNTEER, Abandoned)}


def spoken() -> dict[str, wire.Packet]:
    """One honest packet of every kind that an exchange knows, from both sides."""
    found: dict[str, wire.Packet] = {}
    for phase in ORDER[:-1]:
        play = Play.at(phase)
        for item in play.open:
            for packet in (item.packet, play.answer(item)):
                assert packet is not None
                found[wire.peek_kind(packet, "test")] = packet
    return found


START = adapter(0)
EVERY_PACKET = spoken() | {
    "abandoned": wire.encode(Abandoned("for a test")),
    "decline": wire.encode(Decline(3, "work failed")),
    "ready": wire.encode(Ready(3, 1, 1, 1.0, 1.0, 1.0, 1)),
    "report": wire.encode(Report(3, 1, 1.0, bytes(96))),
    "evaluation": wire.encode(Evaluation(3, 1.0, 10)),
    "train task": wire.encode(train_task(START, 3)),
    "evaluate task": wire.encode(evaluate_task(START, 3)),
    "report request": wire.encode(ReportRequest(3, 1, b"h" * 32)),
    "garbage": wire.Packet(b"\xc1\xff", b"\x00"),
    "empty": wire.Packet(b""),
}


def whole(exchange: MaskedExchange) -> None:
    """Assert what is true of an exchange at any time."""
    phase = exchange._session.phase
    ended = phase in (ServerPhase.DONE, ServerPhase.ABANDONED)
    assert exchange.done is ended
    assert (exchange.mean is not None) is (phase is ServerPhase.DONE)
    assert (exchange.failed is not None) is (phase is ServerPhase.ABANDONED)
    assert exchange.uploads == ()
    if not ended:
        assert exchange.next_deadline < math.inf


@pytest.mark.parametrize("phase", list(ServerPhase), ids=str)
def test_a_packet_is_the_one_that_is_due_or_names_its_sender_and_the_rest_go_on(
    phase: ServerPhase,
) -> None:
    play = Play.at(phase)
    due = {ServerPhase.NEW: wire.kind_of(Noted)} | {p: wire.kind_of(ACCEPTS[p]) for p in ACCEPTS}
    for name, packet in EVERY_PACKET.items():
        exchange = deepcopy(play.exchange)
        assert exchange.receive("stranger", packet, 0.0) == []
        if exchange.done:
            assert exchange.receive(FIRST, packet, 0.0) == []
        elif name != due[phase]:
            with pytest.raises(RemoteProtocolError, match=FIRST):
                exchange.receive(FIRST, packet, 0.0)
        else:
            continue  # `Play.at` sends those
        whole(exchange)
        assert exchange._session.phase is phase
    if not play.exchange.done:
        play.exchange.leave(FIRST, "broke the protocol", 0.0)  # as the round does with it
        play.open = [item for item in play.open if item.volunteer != FIRST]
        for _ in ServerPhase:
            if not play.exchange.done:
                play.everybody()
        if (
            phase is ServerPhase.NEW
        ):  # a round's sums are over the same volunteers, or there is none
            assert play.exchange.failed is not None
            return
        assert play.exchange.mean is not None
        among = FIRST in play.exchange.contributors
        assert among is (phase in (ServerPhase.SIGNATURES, ServerPhase.REVEALS))


@pytest.mark.parametrize("phase", list(ServerPhase), ids=str)
def test_departures_and_hours_move_an_exchange_to_a_later_phase_or_not_at_all(
    phase: ServerPhase,
) -> None:
    events: dict[str, Callable[[MaskedExchange], Any]] = {
        "one leaves": lambda exchange: exchange.leave(FIRST, "gone", 1.0),
        "it leaves twice": lambda exchange: [exchange.leave(FIRST, "gone", 1.0) for _ in "ab"],
        "a stranger leaves": lambda exchange: exchange.leave("stranger", "gone", 1.0),
        "too early": lambda exchange: exchange.wake(WIDE_S / 2),
        "too late": lambda exchange: exchange.wake(1e9),
        "it is gone and speaks": lambda exchange: [
            exchange.leave(FIRST, "gone", 1.0),
            *(exchange.receive(FIRST, packet, 1.0) for packet in EVERY_PACKET.values()),
        ],
    }
    for name, event in events.items():
        play = Play.at(phase)
        event(play.exchange)
        whole(play.exchange)
        if phase in (ServerPhase.DONE, ServerPhase.ABANDONED):
            assert play.phase is phase, name
        elif play.phase is not ServerPhase.ABANDONED:
            assert ORDER.index(play.phase) >= ORDER.index(phase), name
        if name in ("a stranger leaves", "too early"):
            assert play.phase is phase, name


@pytest.mark.parametrize("phase", [ServerPhase.NEW, *COLLECTING], ids=str)
def test_an_exchange_whose_volunteers_fall_silent_ends(phase: ServerPhase) -> None:
    play = Play.at(phase)
    for _ in ServerPhase:
        play.exchange.wake(play.exchange.next_deadline)
    assert play.exchange.failed is not None
    assert "abandoned" in play.exchange.failed


@pytest.mark.parametrize("phase", COLLECTING, ids=str)
def test_once_there_are_enough_the_last_ones_are_waited_for_a_moment_only(
    phase: ServerPhase,
) -> None:
    play = Play.at(phase, 5)
    asked = play.open
    for item in asked[:-1]:
        packet = play.answer(item)
        assert packet is not None
        play.exchange.receive(item.volunteer, packet, 1.0)
    assert play.phase is phase
    enough = play.exchange._session.ready
    assert play.exchange.next_deadline == (1.0 + GRACE_S if enough else WIDE_S)


def test_every_kind_that_a_session_knows_is_among_the_packets() -> None:
    kinds = {wire.kind_of(kind) for kind in (*TO_COORDINATOR, *TO_VOLUNTEER, Noted, ExchangeReply)}
    assert kinds - EVERY_PACKET.keys() == {wire.kind_of(Abandoned)}
    assert wire.peek_kind(EVERY_PACKET["abandoned"], "test") == wire.kind_of(Abandoned)
