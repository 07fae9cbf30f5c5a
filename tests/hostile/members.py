"""Members that cheat, among honest ones, in the rounds of an honest coordinator.

Everything but the model and the network is real: the coordinator with its registrar, roster and
ledger in a database, and each volunteer's app, round machine and masking. A cheat changes what a
volunteer answers, signed with its own keys, knowing all its secrets.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.enrolment import Enrol, bind
from nomoat.aggregation.protocol.invitation import Claims
from nomoat.aggregation.protocol.messages import TrainSettings
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.aggregation.secagg import labels
from nomoat.aggregation.secagg.masks import shamir, shares
from nomoat.aggregation.secagg.masks.prg import Keystream
from nomoat.aggregation.secagg.masks.shares import HeldShares
from nomoat.aggregation.secagg.messages import CheckReport, MaskedReport, RevealReport, SharesReport
from nomoat.aggregation.secagg.parameters import NoiseRule, Policy, RosterView
from nomoat.client.round.app import RequestHandler, volunteer_app
from nomoat.client.round.masked_session import MaskedSession, Membership
from nomoat.client.round.session import RoundSession
from nomoat.client.round.task_limits import TaskLimits
from nomoat.client.round.training_origin import TrainingOrigin, version_by_round
from nomoat.flower.packets import packet_of, to_reply
from nomoat.server.community.database import Database
from nomoat.server.community.members import Registrar
from nomoat.server.community.membership_rules import Admission
from nomoat.server.conduct.ledger import ConductLedger
from nomoat.server.rounds.coordinator import Coordinator
from nomoat.server.rounds.federation import Federation, FederationCheckpoint
from nomoat.server.rounds.ports import Clock, Fleet, named_nodes
from nomoat.server.rounds.records import RoundRecord
from nomoat.server.rounds.watching import RoundProgress
from nomoat.simulations.adversaries.kinds import Attack
from nomoat.simulations.adversaries.updates import lying
from nomoat.simulations.network.in_process_grid import InProcessGrid
from nomoat.simulations.pooled_trainer import NoUpdateStore
from tests.hostile.coordinator import BASE, SPEC, LinearTrainer

KEY = SigningKey(b"\7" * 32)
NODE_KEYS = [ec.derive_private_key(3000 + i, ec.SECP384R1()) for i in range(12)]
SETTINGS = TrainSettings(local_steps=1, batch_size=12)

# What a volunteer answers instead: (its machine, its honest answer).
Cheat: TypeAlias = Callable[["Machine", Any], Any]


@dataclass(frozen=True)
class Machine:
    """A volunteer's machine, all of it: a cheat knows its own secrets."""

    name: str
    key: SigningKey
    handler: RequestHandler

    @property
    def stage(self) -> Any:
        """The stage of its session of secure aggregation, after its honest answer."""
        masking = self.handler.session._masking
        assert masking is not None
        assert masking._session is not None
        return masking._session._stage


@dataclass
class RoundLog:
    """A journal and a watcher that keep everything."""

    records: list[RoundRecord] = field(default_factory=list)
    checkpoint: FederationCheckpoint | None = None

    def last(self) -> FederationCheckpoint | None:
        return self.checkpoint

    def history(self) -> list[RoundRecord]:
        return self.records

    def write(self, record: RoundRecord, checkpoint: FederationCheckpoint) -> None:
        self.records.append(record)
        self.checkpoint = checkpoint

    def progress(self, progress: RoundProgress) -> None:
        pass

    def ended(self, record: RoundRecord) -> None:
        pass


class MuffledGrid(InProcessGrid):
    """A grid on which some answers never arrive. silent: volunteer → types of messages."""

    silent: Mapping[str, Collection[str]]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The answers that arrive."""
        replies = super().pull_messages(message_ids)
        names = {node: name for name, node in named_nodes(self).items()}
        return [
            reply
            for reply in replies
            if reply.metadata.message_type
            not in self.silent.get(names[reply.metadata.src_node_id], ())
        ]


class Village:
    """A community of `count` volunteers v0, v1, … of whom some cheat. folder: its database.

    silent: volunteer → the types of messages that it never answers. liars: those whose updates are
    lies, by `attack` eight times too large. noise: what all of them have agreed to.
    """

    def __init__(
        self,
        folder: Path,
        count: int = 8,
        cheats: Mapping[str, Cheat] | None = None,
        silent: Mapping[str, Collection[str]] | None = None,
        liars: Collection[str] = (),
        *,
        noise: NoiseRule | None = None,
        attack: Attack = Attack.SCALED,
    ) -> None:
        self.noise = noise
        self.liars, self.attack = frozenset(liars), attack
        self.folder, self.cheats, self.silent = folder, dict(cheats or {}), dict(silent or {})
        self.now, self.log = 1_800_000_000, RoundLog()
        self.broken: list[Exception] = []  # cheats that did not work
        self.seconds = 0.0  # of the coordinator's clock: they pass while nobody answers
        self.registrar = Registrar(Database(folder / "community.db"), KEY, Admission.OPEN)
        claims = Claims("localhost:1", bytes(32), KEY.public, bytes(16), count, self.now + 10)
        token = self.registrar.invite(claims).token()
        self.machines: dict[str, Machine] = {}
        for number in range(count):
            name, key = f"v{number}", SigningKey(bytes([number + 1]) * 32)
            binding = bind(name, key, NODE_KEYS[number], KEY.public)
            self.registrar.enrol(wire.encode(Enrol(token, binding)).head, self.now)
            self.machines[name] = Machine(name, key, self._handler(name, key))

    def _handler(self, name: str, key: SigningKey) -> RequestHandler:
        def entropy(session: bytes) -> bytes:
            return (name.encode() + session)[:32].ljust(32, b"-")

        membership = Membership(
            key, self.roster, Policy(2, allow_weak=True, audit_words=64, noise=self.noise), entropy
        )
        origin = TrainingOrigin.announced(name, version_by_round)
        kind = lying(self.attack) if name in self.liars else RoundSession
        session = kind(name, BASE, TaskLimits(), masking=MaskedSession(membership), origin=origin)
        return RequestHandler(session, LinearTrainer.of(name), NoUpdateStore())

    def roster(self) -> RosterView:
        """Who may take part, as everybody sees it."""
        known = self.registrar.roster()
        return RosterView(known.head, known.approved())

    def held(self) -> dict[str, str]:
        """Who is held, and why, as the roster has it."""
        members = self.registrar.roster().members
        return {name: m.reason for name, m in members.items() if m.standing == "held"}

    def restart(self) -> None:
        """The coordinator's process ends; another reads what it has left on disk."""
        self.registrar.database.close()
        self.registrar = Registrar(Database(self.folder / "community.db"), KEY, Admission.OPEN)

    def run(self, rounds: int, **changes: Any) -> list[RoundRecord]:
        """Run so many rounds more; their records."""
        done = max(0, len(self.log.records) - 1)
        federation = Federation(
            "fedavg", done + rounds, SETTINGS, BASE, b"s" * 32, clip=4.0, tolerance=10.0
        )
        coordinator = Coordinator(
            replace(federation, **changes),
            self._start(),
            self.log,
            self.log,
            Fleet(self._online, self.roster),
            Clock(lambda: float(self.seconds), self._pause),
            conduct=self._judged,
            session_id=lambda number, exchange: bytes([number, exchange]) * 16,
        )
        grid = MuffledGrid(self._app(), list(self.machines), 4)
        grid.silent = self.silent
        with contextlib.closing(grid):
            coordinator.run(grid)
        assert not self.broken
        return self.log.records[-rounds:]

    def _pause(self, _seconds: float) -> None:
        self.seconds += 1.0

    def _start(self) -> Any:
        from nomoat.aggregation.protocol.adapter import Adapter

        return Adapter(SPEC, np.linspace(-0.1, 0.1, SPEC.size, dtype=np.float32))

    def _online(self, grid: Grid) -> dict[str, int]:
        members = set(self.roster().names.values())
        return {name: node for name, node in named_nodes(grid).items() if name in members}

    def _judged(self, number: int, evidence: Any) -> Mapping[str, str]:
        self.now += 10
        return ConductLedger(self.registrar).judge(number, evidence, self.now)

    def _app(self) -> ClientApp:
        honest = volunteer_app(lambda c: self.machines[str(c.node_config["name"])].handler)
        village = self

        class Cheating(ClientApp):
            def __call__(self, message: Message, context: Context) -> Message:
                answer = honest(message, context)
                machine = village.machines[str(context.node_config["name"])]
                cheat = village.cheats.get(machine.name)
                try:
                    return answer if cheat is None else _instead(cheat, machine, answer, message)
                except Exception as problem:
                    village.broken.append(problem)
                    raise

        return Cheating()


def _instead(cheat: Cheat, machine: Machine, answer: Message, asked: Message) -> Message:
    packet = packet_of(answer, machine.name)
    kind = wire.peek_kind(packet, machine.name)
    known = {wire.kind_of(one): one for one in TWISTABLE}
    if kind not in known:
        return answer
    said = wire.decode(packet, known[kind], machine.name)
    return to_reply(wire.encode(cheat(machine, said)), asked)


TWISTABLE = (SharesReport, CheckReport, MaskedReport, RevealReport)


def deals_shares_of_something_else(machine: Machine, said: Any) -> Any:
    """Shares that are committed to and consistent, of another secret (found at the end, §15.5)."""
    if not isinstance(said, SharesReport):
        return said
    stage = machine.stage
    session, me = stage.session, stage.session.index
    points = [*(j + 1 for j in session.neighbours), me + 1]
    *wrong, kept = shamir.split(bytes(32), session.needed.shares, points, Keystream(bytes(32)))
    boxes = b"".join(
        shares.seal(stage.box_secrets[j], session.transcript, (me, j), HeldShares(share, share))
        for j, share in zip(session.neighbours, wrong, strict=True)
    )
    own = shares.commit_share(labels.COMMIT_SEED_SHARE, session.transcript, (me, me), kept)
    masking = machine.handler.session._masking
    assert masking is not None
    masking._session._stage = replace(stage, kept=kept)  # type: ignore[union-attr]
    return _dealt(machine, SharesReport(said.seed_commitment, own, boxes, bytes(64)))


def deals_broken_boxes(count: int) -> Cheat:
    """Boxes for the first `count` neighbours that nobody can open."""

    def cheat(machine: Machine, said: Any) -> Any:
        if not isinstance(said, SharesReport):
            return said
        spoilt = bytearray(said.boxes)
        for index in range(count):
            spoilt[120 * index] ^= 1
        return _dealt(machine, replace(said, boxes=bytes(spoilt)))

    return cheat


def _dealt(machine: Machine, report: SharesReport) -> SharesReport:
    body = (report.seed_commitment, report.own_commitment, report.boxes)
    signature = machine.key.sign(labels.SIGN_SHARES, machine.stage.session.transcript, *body)
    return replace(report, signature=signature)


def complains_about(*names: str) -> Cheat:
    """Says of these volunteers that they dealt bad shares."""

    def cheat(machine: Machine, said: Any) -> Any:
        if not isinstance(said, CheckReport):
            return said
        session = machine.stage.session
        about = {SigningKey(bytes([int(name[1:]) + 1]) * 32).public for name in names}
        accused = tuple(i for i, who in enumerate(session.identities) if who in about)
        signed = labels.index_bytes(*accused)
        signature = machine.key.sign(labels.SIGN_CHECK, session.transcript, signed)
        return CheckReport(accused, signature)

    return cheat


def reveals_nonsense(machine: Machine, said: Any) -> Any:
    """Shares that were never dealt, under a signature that does not fit, either."""
    return replace(said, shares=said.shares[::-1]) if isinstance(said, RevealReport) else said


def sends_another_vector_than_it_signs(machine: Machine, said: Any) -> Any:
    """A masked vector whose signature is another's."""
    if not isinstance(said, MaskedReport):
        return said
    return replace(said, masked=bytes(len(said.masked)))


def sends_noise_for_its_vector(machine: Machine, said: Any) -> Any:
    """A vector of noise, signed as a masked update is: nobody can tell before all are added."""
    if not isinstance(said, MaskedReport):
        return said
    noise = np.random.default_rng(0).bytes(len(said.masked) - 1) + b"\0"
    stage = machine.stage
    signed = (stage.session.transcript, stage.shared, hashlib.sha256(noise).digest())
    return MaskedReport(machine.key.sign(labels.SIGN_MASKED, *signed), noise)
