"""Volunteers of a simulated life: real machines on real files, their line and disk scripted."""

from __future__ import annotations

import contextlib
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from flwr.app import Context, Message

from builders import BASE, community_info
from nomoat.aggregation.errors import NomoatError, RemoteProtocolError, Unreachable
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.enrolment import (
    Enrol,
    Standing,
    bind,
    enrolling,
    node_public_der,
    prove,
)
from nomoat.aggregation.protocol.history.key_changes import CommunityKeys
from nomoat.aggregation.protocol.invitation import Claims
from nomoat.aggregation.protocol.receipts import Receipts
from nomoat.aggregation.protocol.roster import Event
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.aggregation.protocol.wire import COORDINATOR
from nomoat.aggregation.secagg.diary import Mark
from nomoat.aggregation.secagg.parameters import Policy
from nomoat.client.connection import coordinator_api
from nomoat.client.connection.succession.followed_keys import save
from nomoat.client.home import CommunityFolder
from nomoat.client.membership import restored
from nomoat.client.membership.pinned_lineage import PinnedLineage
from nomoat.client.membership.recovery.giving_back import give_back
from nomoat.client.membership.roster_cache import RosterCache, with_offered_roster
from nomoat.client.membership.roster_file import RosterFile
from nomoat.client.round.app import RequestHandler, volunteer_app
from nomoat.client.round.masked_session import MaskedSession, Membership
from nomoat.client.round.sealed_app import SealParties, sealed
from nomoat.client.round.session import RoundSession
from nomoat.client.round.task_limits import TaskLimits
from nomoat.client.round.training_origin import TrainingOrigin
from nomoat.client.round.update_store import DiskUpdateStore
from nomoat.client.round.work import EvaluateWork, HeldUpdate, Reason, TrainWork, decline
from nomoat.client.sent.log_file import SentLog
from nomoat.client.sent.recorder import Recorder
from nomoat.flower.packets import to_reply
from nomoat.flower.replies import failure
from nomoat.lora.training.train import Trained
from nomoat.server.backup.restoring import restorations
from nomoat.server.community.opened import OpenCommunity
from nomoat.server.recovery.gathering import Gathering
from nomoat.storage.private import create_private

Served = Callable[[], OpenCommunity | None]


@dataclass
class Line:
    """A coordinator as a volunteer's client reaches it, without a port; down while it is None."""

    served: Served
    identity: SigningKey
    community: bytes
    folder: Callable[[], CommunityFolder]
    gathering: Gathering | None = None  # while the community asks what members hold

    @property
    def keys(self) -> CommunityKeys:
        return self.folder().keys()

    def checked(self, check: Callable[[CommunityKeys], Any]) -> Any:
        """As FollowedKeys has it: what does not hold is looked at under further keys, if any."""
        try:
            return check(self.keys)
        except RemoteProtocolError:
            if not self.follow():
                raise
        return check(self.keys)

    def follow(self) -> bool:
        """Ask for further changes of the community's key, and keep them; True if there were any."""
        before, told = self.keys, self._up().registrar.keys.message()
        after = before.extended(told, COORDINATOR)
        if after != before:
            save(self.folder().root, after)
        return after != before

    def _up(self) -> OpenCommunity:
        found = self.served()
        if found is None:
            raise Unreachable("the coordinator is down")
        return found

    def get(self, target: str, _now: int, _limit: int) -> bytes:
        asked, up = urlsplit(target), self._up()
        after = int(parse_qs(asked.query).get("after", ["0"])[0])
        store = up.registrar.database
        answer: dict[str, Callable[[], object]] = {
            "/lineage": lambda: up.versions.lineage(after),
            "/roster": lambda: up.registrar.page(after),
            "/restored": lambda: restorations(up.folder),
            "/receipts": lambda: Receipts(tuple(store.receipts(self.identity.public, after, 500))),
        }
        return wire.encode(answer[asked.path]()).head

    def post(self, target: str, _now: int, body: bytes = b"") -> bytes:
        if target.startswith("/recovery"):
            return self._given_back(target, body)
        assert target == "/receipts"
        given = wire.decode(wire.Packet(body), Receipts, "test").receipts
        self._up().registrar.take_back(given, self.identity.public)
        return b""

    def _given_back(self, target: str, body: bytes) -> bytes:
        asked, asking, mine = urlsplit(target), self.gathering, self.identity.public
        assert asking is not None
        match asked.path.split("/")[2:]:
            case []:
                return wire.encode(asking.hear(body, mine, 0.0)).head
            case ["lineage"]:
                asking.take_lineage(body, mine, 9)
            case ["roster"]:
                asking.take_roster(body, mine, 9)
            case [_, digest]:
                after = int(parse_qs(asked.query)["after"][0])
                asking.take_adapter(bytes.fromhex(digest), after, body, mine, 0.0)
        return b""


@dataclass(frozen=True)
class Disk(DiskUpdateStore):
    """A volunteer's disk, which may be full."""

    full: list[bool] = field(default_factory=lambda: [False])

    def save(self, held: HeldUpdate) -> None:
        self._room()
        super().save(held)

    def mark(self, marks: tuple[Mark, ...]) -> None:
        self._room()
        super().mark(marks)

    def _room(self) -> None:
        if self.full[0]:
            raise NomoatError("cannot write: no space left on device")


@dataclass
class Trainer:
    """Trains by adding noise; notes what for, so that a training in vain is seen."""

    rng: np.random.Generator
    trained: list[int] = field(default_factory=list)

    def train(self, work: TrainWork) -> Trained:
        self.trained.append(work.task.round)
        start = work.local.adapter.vector
        noise = self.rng.standard_normal(start.size).astype(np.float32) * np.float32(1e-3)
        return Trained(start + noise, 1, 100, 2.0, 1.0, 0.1)

    def evaluate(self, work: EvaluateWork) -> tuple[float, int, float | None]:
        return 1.0, 8, None


class Person:
    """One volunteer: its folder and keys last, its process may die at any moment."""

    def __init__(self, name: str, root: Path, served: Served, public: bytes, seed: int) -> None:
        self.name, self.root, self._rng = name, root, random.Random(seed)
        self.identity = SigningKey(name.encode().ljust(32, b"."))
        self.line: Any = Line(served, self.identity, public, lambda: self.folder)
        self.public, self.machine = public, 0
        self.trainer = Trainer(np.random.default_rng(seed))
        self.paused = self.away = False
        self.clock: Callable[[], float] = lambda: 0.0

    @property
    def folder(self) -> CommunityFolder:
        return CommunityFolder(self.root / f"{self.name}-{self.machine}")

    @property
    def node_key(self) -> ec.EllipticCurvePrivateKey:
        number = 7000 + 100 * (self.name.encode()[0]) + self.machine
        return ec.derive_private_key(number, ec.SECP384R1())

    def admit(self, community: OpenCommunity) -> None:
        """Bring this machine into the roster, whatever stands in the way there."""
        member = community.registrar.roster().members.get(self.name)
        ours, now = node_public_der(self.node_key.public_key()), int(self.clock())
        if member is not None and member.standing is Standing.APPROVED:
            if member.binding.node_key == ours:
                return
            community.registrar.order(self.name, Event.LEAVE, "its machine is lost", now)
        claims = Claims(
            "h:1", b"c" * 32, community.registrar.key.public, self._rng.randbytes(16), 1, 2**33
        )
        token = community.registrar.invite(claims).token()
        binding = bind(self.name, self.identity, self.node_key, self.public)
        request = wire.encode(Enrol(token, binding)).head
        proof = prove(self.identity, self.public, enrolling(request), now)
        community.registrar.enrol(request, now, proof)

    def begin(self) -> None:
        """Make the folder of a machine that has just joined, and start its process."""
        self.folder.save_info(community_info(public=self.public))
        pem = self.node_key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        create_private(self.folder.node_key, pem)
        DiskUpdateStore(self.folder.held).begin()
        self.line.follow()  # the invitation names one of its keys
        self.start()

    def start(self) -> None:
        """Start the process: all it knows is what its folder holds."""
        root = self.folder.root
        self.disk = Disk(self.folder.held)
        cache, lineage = RosterCache(RosterFile(root), self.line), PinnedLineage(root, self.line)
        self.lineage = lineage
        membership = Membership(
            self.identity,
            cache.current,
            Policy(min_participants=2, allow_weak=True),
            lambda _session: self._rng.randbytes(32),
            clock=self.clock,
        )
        session = RoundSession(
            self.name,
            BASE,
            TaskLimits(),
            self.disk.load(),
            MaskedSession(membership, self.disk.marks()),
            TrainingOrigin(self.disk.draw, lineage.version_of, lineage.is_present, signed=True),
        )
        self.recorder = Recorder(SentLog(root), "town", "h:1", self.clock)
        handler = RequestHandler(session, self.trainer, self.disk, (self.recorder,))
        parties = SealParties(self.identity, self.public, BASE, self.line.checked)
        self.app = sealed(with_offered_roster(volunteer_app(lambda _: handler), cache), parties)

    def answer(self, message: Message, context: Context) -> Message:
        """Answer as its process does: governed, logged before it leaves, an error in its class."""
        kind = message.metadata.message_type
        if self.paused and kind.startswith(("train.", "evaluate.")):
            reply = to_reply(wire.encode(decline(0, Reason.PAUSED)), message)
        else:
            try:
                reply = self.app(message, context)
            except Exception as problem:  # noqa: BLE001 - as the message worker does
                reply = failure(message, problem)
        try:
            if self.disk.full[0]:
                raise NomoatError("cannot write: no space left on device")
            self.recorder(message, reply)
        except NomoatError as problem:
            return failure(message, problem)
        return reply

    def believes(self) -> str:
        """How the coordinator that is there tells another history of its key; "" if it does not."""
        try:
            self.line.follow()
            self.lineage.refresh()
        except RemoteProtocolError as problem:
            return problem.reason
        return ""

    def edit(self, seed: int) -> None:
        """Have other rows from now on: what is trained comes out otherwise."""
        self.trainer.rng = np.random.default_rng(seed)

    def move(self, community: OpenCommunity) -> None:
        """Leave, and come back from another machine, with the same identity and nothing else."""
        community.registrar.leave(self.identity.public, int(self.clock()))
        shutil.rmtree(self.folder.root)
        self.machine += 1
        self.admit(community)
        self.begin()

    def follow(self, community: OpenCommunity) -> None:
        """Fetch the newest version, as the follower does some time after a round."""
        try:
            record = self.lineage.refresh().record
        except RemoteProtocolError:
            return  # its owner is asked
        path = self.folder.adapter(record)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(community.versions.path(record.version.adapter), path)
        self.folder.save_version(record)

    def give_back(self, gathering: Gathering) -> None:
        """Tell a restored community what is held here, and send what it lacks."""
        self.line.gathering = gathering
        with contextlib.suppress(NomoatError):
            give_back(self.folder, self.line, self.clock)

    def heed(self) -> None:
        """The owner gives the word that a restored backup needs, where one does."""
        found = restored.waiting(self.folder, self.line)
        if found is not None:
            restored.accept(self.folder, found)
            self.start()
        if restored.accepted(self.folder.root) is not None:
            restored.hand_back(self.folder, self.line)

    def fetch_receipts(self) -> None:
        log = SentLog(self.folder.root)
        for signed in coordinator_api.receipts(self.line, 0, 5):
            log.keep(signed)
