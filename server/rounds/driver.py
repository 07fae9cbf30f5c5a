"""Carrying messages between a round's machines and a Grid, until the machine is done."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from flwr.app import Message
from flwr.serverapp import Grid

from nomoat.aggregation.errors import Diverged, NomoatError, RemoteProtocolError
from nomoat.aggregation.plain_text import one_line
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.aggregation.protocol.messages import TrainTask
from nomoat.flower.packets import packet_of, records_of, to_message
from nomoat.flower.replies import REFUSED
from nomoat.server.rounds.machines.interfaces import DrivenMachine, Outgoing
from nomoat.server.rounds.machines.stragglers import Straggler, Stragglers
from nomoat.server.rounds.ports import Clock, Fleet
from nomoat.server.rounds.receipts import ReceivedUpdates
from nomoat.server.rounds.watching import RoundProgress, Traffic, Watcher

log = logging.getLogger(__name__)

POLL_S = 0.005
SHOWN = 200  # characters of what a volunteer's error says
TRAIN = wire.kind_of(TrainTask)


@dataclass
class Carried:
    """The messages of one machine: bytes of payload, and which updates arrived whole."""

    traffic: Traffic = field(default_factory=Traffic)
    updates: ReceivedUpdates = field(default_factory=ReceivedUpdates)


@dataclass(frozen=True)
class Driver:
    """Drives machines over a grid. measure: an adapter's loss on the community's own rows.

    stragglers: who still trains for a round that has gone on.
    """

    grid: Grid
    fleet: Fleet
    clock: Clock
    watcher: Watcher
    measure: Callable[[Adapter], Future[float]] | None = None
    stragglers: Stragglers = field(default_factory=Stragglers)

    def drive(self, machine: DrivenMachine, number: int) -> Carried:
        """Carry the messages of round `number` until its machine is done."""
        return _Carrying(self, machine, number).carry()


class _Carrying:
    """One machine's messages under way."""

    def __init__(self, driver: Driver, machine: DrivenMachine, number: int) -> None:
        self._driver = driver
        self._machine = machine
        self._number = number
        self._nodes = dict(driver.fleet.volunteers(driver.grid))
        self._pending: dict[str, str] = {}  # message id → volunteer
        self._training: dict[str, float] = {}  # message id → when it was asked to train
        self._phases: dict[str, set[str]] = {}  # phase → volunteers asked something in it
        self._measuring: Future[float] | None = None
        self._carried = Carried()

    def carry(self) -> Carried:
        """Send and receive until the machine is done."""
        machine, clock = self._machine, self._driver.clock
        outgoing = machine.start(clock.now())
        while outgoing or not machine.done:
            following = self._send(outgoing)
            if outgoing:  # answers may be there already, and the phase over
                self._driver.watcher.progress(self._progress())
            outgoing = following + self._receive() + self._measure()
            outgoing += machine.wake(clock.now())
            self._driver.watcher.progress(self._progress())
            if not outgoing and not machine.done:
                clock.pause(POLL_S)
        self._let_go()
        return self._carried

    def _progress(self) -> RoundProgress:
        """Count the volunteers asked in this phase, and those of them who owe nothing."""
        phase = self._machine.stage
        asked = self._phases.get(phase, set())
        owing = asked.intersection(self._pending.values())
        return RoundProgress(self._number, phase, len(asked) - len(owing), len(asked))

    def _let_go(self) -> None:
        """Take back what is not answered, but for what stragglers work on."""
        stragglers, late = self._driver.stragglers, self._machine.stragglers
        for message_id, name in self._pending.items():
            if name in late and message_id in self._training:
                owed = Straggler(name, self._training[message_id], late[name])
                stragglers.keep(message_id, owed)
        self._driver.fleet.withdraw(
            [one for one in self._pending if one not in stragglers.messages]
        )

    def _send(self, outgoing: list[Outgoing]) -> list[Outgoing]:
        """Push messages and note whose answers are pending; what the machine says to losses."""
        known = [item for item in outgoing if item.volunteer in self._nodes]
        gone = [item.volunteer for item in outgoing if item.volunteer not in self._nodes]
        for item in known:
            self._driver.fleet.withdraw(self._driver.stragglers.ask_anew(item.volunteer))
        messages = self._messages(known)
        ids = list(self._driver.grid.push_messages(messages)) if messages else []
        latest = {volunteer: message_id for message_id, volunteer in self._pending.items()}
        for item, message_id in zip(known, ids, strict=True):
            if message_id:
                # Asked something new: its answer to what it was asked before comes too late.
                self._pending.pop(latest.get(item.volunteer, ""), None)
                latest[item.volunteer] = message_id
                self._pending[message_id] = item.volunteer
                self._phases.setdefault(self._machine.stage, set()).add(item.volunteer)
                if wire.peek_kind(item.packet, item.volunteer) == TRAIN:
                    self._training[message_id] = self._driver.clock.now()
                self._carried.traffic.down += item.packet.size
            else:
                gone.append(item.volunteer)
        now = self._driver.clock.now()
        return [more for name in gone for more in self._machine.leave(name, "gone", now)]

    def _messages(self, outgoing: list[Outgoing]) -> list[Message]:
        """Flower's messages; a packet for many is cut up once, as that copies it and hashes it."""
        records = {id(item.packet): records_of(item.packet) for item in outgoing}
        return [
            to_message(
                wire.peek_kind(item.packet, item.volunteer),
                records[id(item.packet)],
                self._nodes[item.volunteer],
                str(self._number),
            )
            for item in outgoing
        ]

    def _receive(self) -> list[Outgoing]:
        """Take the answers that are there; what the machine says to them."""
        outgoing: list[Outgoing] = []
        stragglers, now = self._driver.stragglers, self._driver.clock.now()
        for reply in self._driver.grid.pull_messages([*self._pending, *stragglers.messages]):
            message_id = reply.metadata.reply_to_message_id
            if stragglers.answered(message_id, now, reply.has_error()):
                continue
            volunteer = self._pending.pop(message_id, None)
            if volunteer is not None:
                if message_id in self._training and not reply.has_error():
                    stragglers.took(volunteer, now - self._training[message_id])
                outgoing += self._take(volunteer, reply)
        return outgoing

    def _take(self, volunteer: str, reply: Message) -> list[Outgoing]:
        machine, now = self._machine, self._driver.clock.now()
        if reply.has_error() and reply.error.code == REFUSED:
            reason = one_line(reply.error.reason or "its seal does not hold")[:SHOWN]
            return machine.refuse(volunteer, reason, now)
        if reply.has_error():
            return machine.leave(volunteer, f"no answer (code {reply.error.code})", now)
        try:
            packet = packet_of(reply, volunteer)
        except RemoteProtocolError as problem:
            return machine.refuse(volunteer, problem.reason, now)
        if len(packet.head) > wire.MAX_ANSWER_HEAD_BYTES:
            return machine.refuse(volunteer, "its message's head is larger than an answer's", now)
        self._carried.traffic.up += packet.size
        self._carried.updates.note(volunteer, packet)
        return machine.receive(volunteer, packet, now)

    def _measure(self) -> list[Outgoing]:
        """Have the machine's adapter measured on the community's rows, and tell it the loss."""
        adapter = self._machine.to_measure
        if adapter is None or self._driver.measure is None:
            return []
        if self._measuring is None:
            self._measuring = self._driver.measure(adapter)
        if not self._measuring.done():
            return []
        return self._machine.measured(loss_of(self._measuring), self._driver.clock.now())


def loss_of(measured: Future[float]) -> float | None:
    """The loss, inf if the adapter has none, None if it could not be measured.

    Then the round goes by the volunteers' losses alone.
    """
    try:
        return measured.result()
    except Diverged:
        return math.inf
    except NomoatError as problem:
        log.warning("the evaluation split was not measured: %s", problem)
        return None
