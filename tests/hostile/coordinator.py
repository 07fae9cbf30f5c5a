"""A coordinator that speaks the protocol and lies, over the real machines of honest volunteers.

Each volunteer is what `nomoat run` puts together (app, round machine, masking, files on disk), less
network and model: a linear model on rows of its own stands in for the language model, trained in
the order that `lora.data.batches` draws. Every message goes through the wire's encoding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from builders import evaluate_task, train_task
from nomoat.aggregation import methods
from nomoat.aggregation.errors import RemoteProtocolError
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.adapter import Adapter, AdapterSpec, LayerSpec, Vector
from nomoat.aggregation.protocol.messages import (
    Decline,
    ExchangeReply,
    TrainSettings,
    TrainTask,
    task_digest,
)
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.aggregation.secagg.messages import Abandoned
from nomoat.aggregation.secagg.parameters import Policy, RosterView, Terms, propose
from nomoat.aggregation.secagg.server.session import ServerSession
from nomoat.aggregation.secagg.transcript import work_hash
from nomoat.client.round.app import RequestHandler
from nomoat.client.round.masked_session import MaskedSession, Membership
from nomoat.client.round.session import RoundSession
from nomoat.client.round.task_limits import TaskLimits
from nomoat.client.round.training_origin import TrainingOrigin, VersionOf, version_by_adapter
from nomoat.client.round.update_store import DiskUpdateStore
from nomoat.client.round.work import EvaluateWork, Overtaken, TrainWork
from nomoat.client.training.round_jobs import SHARE
from nomoat.lora.data.batches import shuffled_rows
from nomoat.lora.data.encoding import Example
from nomoat.lora.training.train import Trained

SPEC = AdapterSpec(
    (LayerSpec("model.a", 24, 20, 2), LayerSpec("model.b", 20, 24, 2)),
    2,
    4.0,
    target_modules=("a",),
)
BASE = b"b" * 32
ROWS = 12
CLIP = 4.0
ONE_STEP_OVER_ALL_ROWS = TrainSettings(local_steps=1, batch_size=ROWS)
PHASES = ("keys", "shares", "checks", "masked", "signatures", "reveals")


@dataclass
class LinearTrainer:
    """Trains w of y = x·w on this volunteer's own rows, and notes each update it made."""

    rows: np.ndarray
    targets: np.ndarray
    updates: list[Vector] = field(default_factory=list)
    evaluations: list[bytes] = field(default_factory=list)
    overtaken: bool = False  # the coordinator goes on before the training has ended

    @classmethod
    def of(cls, name: str) -> LinearTrainer:
        """A trainer whose rows follow from a name."""
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
        rng = np.random.default_rng(seed)
        return cls(rng.standard_normal((ROWS, SPEC.size)), rng.standard_normal(ROWS))

    def train(self, work: TrainWork) -> Trained:
        """SGD over batches of the rows, in the order drawn from the work's seed."""
        if self.overtaken:
            raise Overtaken("another task has come")
        start = work.local.adapter.vector.astype(np.float64)
        values, settings = start.copy(), work.task.settings
        examples = [Example(np.zeros(8, np.int32), np.ones(8, np.bool_))] * len(self.rows)
        batches = shuffled_rows(examples, settings.batch_size, work.seed, SHARE)
        tokens = 0
        for _, rows in zip(range(settings.local_steps), batches, strict=False):
            x, y = self.rows[rows, : len(start)], self.targets[rows]
            values -= 10 * settings.learning_rate * x.T @ (x @ values - y) / len(rows)
            tokens += 8 * len(rows)
        self.updates.append((values - start).astype(np.float32))
        return Trained(values.astype(np.float32), settings.local_steps, tokens, 2.0, 1.0, 0.1)

    def evaluate(self, work: EvaluateWork) -> tuple[float, int, float | None]:
        """Measure; which adapter it was is noted."""
        self.evaluations.append(work.adapter.digest)
        return 1.0, 8, None


@dataclass(frozen=True)
class Sum:
    """A sum the coordinator got: its mean, and who was in it."""

    mean: Vector
    members: frozenset[str]

    @property
    def total(self) -> np.ndarray:
        """Σ x, float64."""
        return self.mean.astype(np.float64) * len(self.members)


@dataclass
class Lies:
    """What one session does to some volunteers. Each maps a phase to names.

    silenced: their answers of that phase are thrown away. withheld: the message that opens that
    phase never reaches them.
    """

    silenced: Mapping[str, Iterable[str]] = field(default_factory=dict)
    withheld: Mapping[str, Iterable[str]] = field(default_factory=dict)


class Town:
    """Honest volunteers v1, v2, … and the coordinator that has them; `folder` is their disks."""

    def __init__(
        self,
        folder: Path,
        count: int,
        policy: Policy | None = None,
        version_of: VersionOf = version_by_adapter,
        ranks: Mapping[str, int] | None = None,
    ) -> None:
        self.ranks = ranks or {}  # of those who train fewer modules
        self.version_of, self.now = version_of, 1e9
        self.folder, self.policy = folder, policy or Policy()
        self.names = [f"v{i + 1}" for i in range(count)]
        self.keys = {name: SigningKey(name.encode().ljust(32, b".")) for name in self.names}
        self.roster = RosterView(b"r" * 32, {key.public: n for n, key in self.keys.items()})
        self.trainers = {name: LinearTrainer.of(name) for name in self.names}
        self.start = Adapter(SPEC, np.linspace(-0.1, 0.1, SPEC.size, dtype=np.float32))
        self.drawn = 0
        self.announced: dict[int, TrainTask] = {}  # round → its task, as it was announced last
        self.volunteers: dict[str, RequestHandler] = {}
        for name in self.names:
            self.store(name).begin()
            self.restart(name)

    def store(self, name: str) -> DiskUpdateStore:
        """The files of a volunteer."""
        return DiskUpdateStore(self.folder / name, lambda _size: self._entropy())

    def restart(self, name: str) -> None:
        """A volunteer's process ends; another reads what it has left on disk."""
        store = self.store(name)
        membership = Membership(
            self.keys[name],
            lambda: self.roster,
            self.policy,
            self._entropy,
            clock=lambda: self.now,
        )
        masking = MaskedSession(membership, store.marks())
        limits = TaskLimits(rank=self.ranks.get(name, SPEC.rank))
        origin = TrainingOrigin(store.draw, self.version_of)
        session = RoundSession(name, BASE, limits, store.load(), masking, origin)
        self.volunteers[name] = RequestHandler(session, self.trainers[name], store)

    def _entropy(self, _session: bytes = b"") -> bytes:
        self.drawn += 1
        return hashlib.sha256(b"entropy %d" % self.drawn).digest()

    def ask(self, name: str, request: Any) -> Any:
        """What a volunteer answers, decoded by the kind it says it is."""
        request = wire.decode(wire.encode(request), type(request), "coordinator")
        answer = self.volunteers[name].answer(request)
        return wire.decode(wire.encode(answer), type(answer), name)

    def train(
        self,
        number: int,
        names: Iterable[str] | None = None,
        settings: TrainSettings = ONE_STEP_OVER_ALL_ROWS,
        **changes: Any,
    ) -> dict[str, Any]:
        """Announce a round; everybody's answer."""
        start: Adapter = changes.pop("start", self.start)
        # The coordinator's seed is the same in every round.
        task = train_task(start, number, base_hash=BASE, settings=settings, **changes)
        self.announced[number] = task
        return {name: self.ask(name, task) for name in (names or self.names)}

    def overtake(self, number: int, **changes: Any) -> None:
        """Announce a round and go on at once: everybody puts it away, and holds what it held."""
        for trainer in self.trainers.values():
            trainer.overtaken = True
        self.train(number, **changes)
        for trainer in self.trainers.values():
            trainer.overtaken = False

    def evaluate(self, number: int, adapter: Adapter, name: str) -> Any:
        """Have one volunteer measure an adapter."""
        task = evaluate_task(adapter, number, base_hash=BASE, settings=ONE_STEP_OVER_ALL_ROWS)
        return self.ask(name, task)

    def sum(
        self,
        number: int,
        names: Iterable[str] | None = None,
        lies: Lies | None = None,
        **changes: Any,
    ) -> Sum | None:
        """Run a session over these volunteers, as far as they go along."""
        lies, members = lies or Lies(), list(names or self.names)
        exchange, method = changes.pop("exchange", 1), methods.get(changes.pop("method", "fedavg"))
        start: Adapter = changes.pop("start", self.start)
        reply, others = changes.pop("reply", b""), changes.pop("told", {})
        if exchange > 1:
            notes = {
                name: ExchangeReply(number, exchange, start.digest, others.get(name, reply))
                for name in members
            }
            members = [n for n in members if not isinstance(self.ask(n, notes[n]), Decline)]
        manifest = method.manifest(start.spec, number, exchange)
        work = bytes(32)
        if number in self.announced:
            work = work_hash(task_digest(self.announced[number]), reply)
        told = (number, exchange, BASE, start.digest, manifest, self.roster)
        terms = Terms(*told, work=work, standing=self.standing(number))
        sizes = (self.policy.least, max(self.policy.least, len(members)))
        clips = tuple(CLIP for _ in manifest.tensors)
        offer = replace(propose(self._entropy(), terms, clips, sizes), **changes)
        return self._drive(ServerSession(offer, manifest, self.roster), members, lies)

    def standing(self, _number: int) -> bytes:
        """The digest of the RoundEnd that a round began after; empty where none is signed."""
        return b""

    def _drive(self, session: ServerSession, members: list[str], lies: Lies) -> Sum | None:
        if not members:
            return None
        step = session.open([self.keys[name].public for name in members])
        inside: set[str] = set()
        for phase in PHASES:
            answered = set()
            for identity, message in step.outgoing.items():
                name = self.roster.names[identity]
                if name in lies.withheld.get(phase, ()) or isinstance(message, Abandoned):
                    continue
                answer = self.ask(name, message)
                if isinstance(answer, Decline) or name in lies.silenced.get(phase, ()):
                    continue
                try:
                    session.receive(identity, answer)
                except RemoteProtocolError:
                    continue
                answered.add(name)
            if phase == "masked":
                inside = answered
            step = session.close()
            if session.over:
                break
        if step.result is None:
            return None
        return Sum(step.result.mean, frozenset(inside))


def correlation(found: np.ndarray, update: Vector) -> float:
    """Of what was computed with an update, the best over sign and size."""
    return abs(float(np.corrcoef(found, update.astype(np.float64))[0, 1]))
