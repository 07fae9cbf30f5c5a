"""A whole session in memory: n volunteers, one coordinator, every message through the wire."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from nomoat.aggregation.errors import RemoteProtocolError
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.adapter import Manifest, TensorSpec
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.aggregation.secagg.audit.terms import audited
from nomoat.aggregation.secagg.client.session import ClientSession
from nomoat.aggregation.secagg.client.stages import Volunteer
from nomoat.aggregation.secagg.diary import Mark
from nomoat.aggregation.secagg.masks.keys import SessionSecrets
from nomoat.aggregation.secagg.parameters import Policy, RosterView, Terms, propose
from nomoat.aggregation.secagg.server.session import ServerSession, ServerStep
from nomoat.aggregation.sums.fixed_point import Contribution

OPENING = ("keys", "shares", "checks", "masked", "signatures", "reveals")
AUDITED = (*OPENING[:4], "sketches", *OPENING[4:])
Change = Callable[[int, Any], Any]


@dataclass
class Federation:
    """Volunteers are numbered by their place in the session's roster (ascending identity)."""

    count: int
    size: int = 24
    n_min: int = 0
    n_max: int = 0
    clip: float = 0.05
    seed: int = 0
    policy: Policy = field(default_factory=lambda: Policy(2, allow_weak=True))
    bound: float = 0.0  # of a session that is audited, on the L2 norm
    drops: Mapping[str, set[int]] = field(default_factory=dict)  # exchange → who falls silent
    down: Mapping[str, Change] = field(default_factory=dict)  # changes what a volunteer gets
    up: Mapping[str, Change] = field(default_factory=dict)  # changes what the coordinator gets

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        self.rng = rng
        keys = [SigningKey(rng.bytes(32)) for _ in range(self.count)]
        self.keys = sorted(keys, key=lambda key: key.public)
        self.ids = [key.public for key in self.keys]
        self.names = {public: f"volunteer {i}" for i, public in enumerate(self.ids)}
        self.manifest = Manifest((TensorSpec("a", (self.size - 4,)), TensorSpec("b", (2, 2))))
        self.roster = RosterView(rng.bytes(32), self.names)
        self.terms = Terms(3, 1, rng.bytes(32), rng.bytes(32), self.manifest, self.roster)
        self.clips = (self.clip, 2 * self.clip)
        self.vectors = [
            rng.uniform(-self.clip, self.clip, self.size).astype(np.float32) for _ in self.ids
        ]
        self.entropy = [rng.bytes(32) for _ in self.ids]
        sizes = (self.n_min or min(self.count, 8), self.n_max or max(self.count, 2))
        self.offer = propose(rng.bytes(32), self.terms, self.clips, sizes)
        self.audit_seed = rng.bytes(32) if self.bound else b""
        if self.bound:
            self.policy = replace(self.policy, audit_words=64)
            same = (self.clip,) * len(self.clips)
            bounded = replace(self.offer, clips=same, clip_l2=self.bound)
            self.offer = audited(bounded, self.audit_seed)
        self.refused: dict[int, Exception] = {}
        self.marks: dict[int, list[Mark]] = {i: [] for i in range(self.count)}
        self.sent: dict[int, list[wire.Packet]] = {i: [] for i in range(self.count)}
        self.clients = [self.client(i) for i in range(self.count)]
        self.server = ServerSession(self.offer, self.manifest, self.roster, self.audit_seed)
        self.silent: set[int] = set()

    def volunteer(self, i: int, **changes: Any) -> Volunteer:
        """Volunteer i, with some of its fields changed."""
        fields: dict[str, Any] = {
            "identity": self.keys[i],
            "terms": self.terms,
            "policy": self.policy,
            "diary": tuple(self.marks[i]),
            "contribution": Contribution(self.vectors[i]),
            "secrets": SessionSecrets(self.entropy[i]),
        }
        return Volunteer(**{**fields, **changes})

    def client(self, i: int, **changes: Any) -> ClientSession:
        """A fresh session of volunteer i."""
        return ClientSession(self.volunteer(i, **changes))

    def run(self, until: str = "") -> ServerStep:
        """Drive the session to its end, or to just before the exchange named `until`."""
        step = self.server.open(self.ids)
        for exchange in AUDITED if self.bound else OPENING:
            if self.server.over or exchange == until:
                return step
            self.silent |= self.drops.get(exchange, set())
            for public, message in step.outgoing.items():
                self.exchange(exchange, self.ids.index(public), message)
            step = self.server.close()
        return step

    def exchange(self, name: str, i: int, message: Any) -> None:
        """One volunteer's part of one exchange."""
        if i in self.silent:
            return
        if name in self.down:
            message = self.down[name](i, message)
        try:
            reply = self.clients[i].receive(over_wire(message))
        except RemoteProtocolError as problem:
            self.refused[i] = problem
            return
        self.marks[i].extend(reply.persist)
        outgoing = reply.outgoing
        if name in self.up:
            outgoing = self.up[name](i, outgoing)
        if outgoing is None:
            return
        self.sent[i].append(wire.encode(outgoing))
        try:
            self.server.receive(self.ids[i], over_wire(outgoing))
        except RemoteProtocolError:
            assert self.ids[i] in self.server.blamed

    def mean(self, who: set[int]) -> np.ndarray:
        """The mean of these volunteers' vectors, in float64."""
        return sum(self.vectors[i].astype(float) for i in who) / len(who)

    def tolerance(self, who: set[int]) -> float:
        """One step of the grid."""
        return 2 * self.clip / (2 ** (self.offer.value_bits - 1) - 2)


def over_wire(message: Any) -> Any:
    """What the other side decodes."""
    return wire.decode(wire.encode(message), type(message), "peer")


@pytest.fixture(scope="session")
def federation() -> type[Federation]:
    return Federation


@pytest.fixture(scope="session")
def running(federation) -> Callable[..., tuple[Federation, ServerStep]]:
    """A federation driven to just before an exchange, and the messages it would start with."""

    def start(until: str, count: int = 8, **options: Any) -> tuple[Federation, ServerStep]:
        made = federation(count, **options)
        return made, made.run(until)

    return start
