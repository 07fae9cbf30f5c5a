"""Our side: a session whose volunteers live in one process, every message encoded and decoded."""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from masked.timing import CLIP, timed
from nomoat.aggregation.protocol import signing, wire
from nomoat.aggregation.protocol.adapter import Manifest, TensorSpec
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.aggregation.secagg.client.session import ClientSession
from nomoat.aggregation.secagg.client.stages import Volunteer
from nomoat.aggregation.secagg.masks.keys import SessionSecrets
from nomoat.aggregation.secagg.parameters import Policy, RosterView, Terms, propose
from nomoat.aggregation.secagg.server.session import ACCEPTS, ServerSession, ServerStep
from nomoat.aggregation.sums.fixed_point import Contribution

EXCHANGES = ("keys", "shares", "checks", "masked", "signatures", "reveals")


def verify_each_time() -> None:
    """Let every volunteer verify every signature itself, as on a machine of its own.

    A process remembers the signatures it has verified; the volunteers of a benchmark share one.
    """
    signing._is_valid = signing._is_valid.__wrapped__  # type: ignore[assignment]


@dataclass
class Ours:
    """A session of n volunteers, driven one exchange at a time; every message goes over the wire.

    Seconds are kept per exchange: those of each volunteer, and those of the coordinator.
    """

    count: int
    size: int
    vectors: Callable[[int], np.ndarray]
    client_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    server_s: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    up: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    down: dict[int, int] = field(default_factory=lambda: defaultdict(int))

    def __post_init__(self) -> None:
        people = sorted((SigningKey(os.urandom(32)) for _ in range(self.count)), key=by_public)
        self.ids = [key.public for key in people]
        names = {public: f"volunteer {i}" for i, public in enumerate(self.ids)}
        manifest = Manifest((TensorSpec("update", (self.size,)),))
        roster = RosterView(os.urandom(32), names)
        terms = Terms(1, 1, os.urandom(32), os.urandom(32), manifest, roster)
        self.offer = propose(os.urandom(32), terms, (CLIP,), (8, self.count))
        self.server = ServerSession(self.offer, manifest, roster)
        self.clients = [
            ClientSession(
                Volunteer(
                    key,
                    terms,
                    Policy(),
                    (),
                    Contribution(self.vectors(i)),
                    SessionSecrets(os.urandom(32)),
                )
            )
            for i, key in enumerate(people)
        ]

    def open(self) -> ServerStep:
        """R0's offer."""
        return self.server.open(self.ids)

    def answer(self, exchange: str, i: int, packet: wire.Packet, kind: type) -> None:
        """Volunteer i gets a message as bytes, and the coordinator gets its answer as bytes."""
        self.down[i] += packet.size

        message: Any = wire.decode(packet, kind, "coordinator")
        seconds, step = timed(lambda: self.clients[i].receive(message))
        around, reply = timed(lambda: wire.encode(step.outgoing))
        around += timed(lambda: wire.decode(packet, kind, "coordinator"))[0]
        self.client_s[exchange].append(seconds)
        self.client_s[exchange + " wire"].append(around)
        self.up[i] += reply.size
        expected = ACCEPTS[self.server.phase]

        def coordinator() -> None:
            self.server.receive(self.ids[i], wire.decode(reply, expected, "volunteer"))

        self.server_s[exchange] += timed(coordinator)[0]

    def exchange(self, name: str, step: ServerStep, silent: set[int]) -> ServerStep:
        """One whole exchange; equal messages are encoded once, as a coordinator would."""
        encoded: dict[int, wire.Packet] = {}
        for i, public in enumerate(self.ids):
            message = step.outgoing.get(public)
            if message is None or i in silent:
                continue
            if id(message) not in encoded:
                encoded[id(message)] = wire.encode(message)
            self.answer(name, i, encoded[id(message)], type(message))
        following: ServerStep
        seconds, following = timed(self.server.close)
        self.server_s[name + " close"] += seconds
        return following

    def run(self, dropped: set[int]) -> ServerStep:
        """The whole session; `dropped` fall silent after R1."""
        step = self.open()
        for name in EXCHANGES:
            step = self.exchange(name, step, dropped if EXCHANGES.index(name) >= 3 else set())
        if step.result is None:
            sys.exit(f"the session was abandoned: {step.reason}")
        return step


def by_public(key: SigningKey) -> bytes:
    """Sort key."""
    return key.public
