"""A real coordinator's port on loopback (TLS, node authentication, SQLite), and volunteers."""

from __future__ import annotations

import datetime
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import ConfigRecord, Context, Message, RecordDict

from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.enrolment import Standing
from nomoat.aggregation.protocol.invitation import Claims
from nomoat.aggregation.protocol.messages import Decline
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.client.connection import coordinator_api, flower_client, message_loop
from nomoat.client.connection.answering import Answering, Record, unrecorded
from nomoat.client.connection.https import Endpoint
from nomoat.client.round.sealed_app import App, SealParties, sealed
from nomoat.server.audit.certificate import ShowsCertificate
from nomoat.server.community import certificates, folder
from nomoat.server.community.database import Database
from nomoat.server.community.folder import Folder, create, describe
from nomoat.server.community.members import Registrar
from nomoat.server.community.membership_rules import Admission
from nomoat.server.community.settings import (
    BaseModelSettings,
    CommunityRoundSettings,
    CommunitySettings,
    ServerSettings,
    Settings,
)
from nomoat.server.community.versions import VersionStore
from nomoat.server.fleet.fleet_grid import FleetGrid, open_run
from nomoat.server.fleet.link_state import FleetState
from nomoat.server.fleet.sealed_grid import Addressee, CommunitySigner, SealedGrid
from nomoat.server.port.listening import ListenOptions
from nomoat.server.port.services import Directory, PortServices
from nomoat.server.porters.opening import open_port

BASE_HASH = b"\xab" * 32
KEY_SEED = b"\7" * 32
# All of these tests hold with NOMOAT_TEST_PORT_PROCESSES=2, too.
DEFAULT_PROCESSES = int(os.environ.get("NOMOAT_TEST_PORT_PROCESSES", "0"))


def packet(text: str, body: bytes = b"") -> RecordDict:
    """A message of ours as Flower carries it (a Decline: it has a word in it)."""
    parts = wire.Packet(wire.encode(Decline(1, text)).head, body).parts()
    return RecordDict({name: ConfigRecord({"bytes": part}) for name, part in parts.items()})


def word(message: Message) -> str:
    """The word `packet` put into a message."""
    head = message.content.config_records["head"]["bytes"]
    return wire.decode(wire.Packet(head), Decline, "test").reason


def echo(message: Message, context: Context) -> Message:
    """Answer with the same word, and whatever body came."""
    bodies = message.content.config_records
    body = b"".join(bodies[name]["bytes"] for name in sorted(bodies) if name != "head")
    return Message(packet(f"re: {word(message)}", body), reply_to=message)


@dataclass
class Town:
    """A community with a port; `up` and `down` start and stop its coordinator."""

    root: Path
    patience_s: float = 60.0
    clock: Callable[[], float] = time.time
    port: int = 0
    processes: int = 0  # before this one, at the port
    population: int = 0
    running: ExitStack = field(default_factory=ExitStack)
    shown: list[ShowsCertificate] = field(default_factory=list)

    def make(self) -> None:
        self.folder = Folder(self.root / "community")
        settings = Settings(
            community=CommunitySettings(name="town"),
            base=BaseModelSettings(model="m", folder=Path("m"), hash=BASE_HASH.hex(), bytes=1),
            rounds=CommunityRoundSettings(seed="00" * 32),
            server=ServerSettings(address="localhost:1"),
        )
        create(self.folder, settings, datetime.datetime.now(datetime.UTC), KEY_SEED)
        self.settings = self.folder.load()

    def up(self) -> None:
        key = self.folder.key()
        authority = self.folder.authority_certificate.read_bytes()
        self.registrar = Registrar(Database(self.folder.database), key, Admission.OPEN)
        self.directory = Directory(self.registrar)
        self.folder.flower.mkdir(exist_ok=True)
        self.state = FleetState(self.folder.flower, self.directory, self.directory.now)
        versions = VersionStore(self.registrar.database, self.folder.adapters, key, BASE_HASH)
        info = describe(self.settings, key, authority, 1000)
        self.desk = PortServices(self.state, self.registrar, versions, info, max_objects=20)
        self.fleet_grid = FleetGrid(self.state, self.patience_s, self.clock)
        self.grid = SealedGrid(
            self.fleet_grid, CommunitySigner(key, BASE_HASH, lambda: os.urandom(16)), self._who
        )
        self.running = ExitStack()
        self.running.callback(self.state.close)
        listening = ListenOptions(
            "127.0.0.1",
            self.port,
            self.folder.server_certificate,
            self.folder.server_key,
            self.processes,
        )
        opening = open_port(self.desk, self.directory, listening, (), self.shown.append)
        self.port = self.running.enter_context(opening).number
        self.running.callback(self.state.pulls.close)
        self.running.enter_context(open_run(self.state, self.fleet_grid))

    def down(self) -> None:
        self.running.close()

    def renew(self) -> None:
        """Have another certificate of the same authority in the folder."""
        now = datetime.datetime.now(datetime.UTC)
        folder._issue_server(self.folder, folder.hosts(self.settings), now)

    def _who(self, node: int) -> Addressee | None:
        infos = self.state.get_node_info(node_ids=[node])
        return self.directory.addressee(bytes(infos[0].public_key)) if infos else None

    def link(self, uses: int = 50) -> str:
        claims = Claims(
            f"localhost:{self.port}",
            certificates.fingerprint(self.folder.authority_certificate.read_bytes()),
            self.folder.key().public,
            os.urandom(16),
            uses,
            int(time.time()) + 600,
        )
        return self.registrar.invite(claims).link()

    def endpoint(self, host: str = "localhost") -> Endpoint:
        return Endpoint(host, self.port, ca=self.folder.authority_certificate.read_bytes())

    def wait_for(self, *names: str, seconds: float = 10.0) -> dict[str, int]:
        until = time.monotonic() + seconds
        while not set(names) <= set(self.fleet_grid.online()):
            assert time.monotonic() < until, f"online: {self.fleet_grid.online()}"
            time.sleep(0.01)
        return self.fleet_grid.online()

    def wait_held(self, node: int, seconds: float = 10.0) -> None:
        """Wait until a request of this node is held open."""
        until = time.monotonic() + seconds
        while node not in self.state.pulls._waiting:
            assert time.monotonic() < until, "no request is held open"
            time.sleep(0.01)

    def ask(
        self,
        word_: str,
        names: list[str],
        group: str = "1",
        body: bytes = b"",
        kind: str = "train.local",
    ) -> list[str]:
        """Send a word to volunteers; the message ids."""
        nodes = self.wait_for(*names)
        content = packet(word_, body)
        messages = [
            Message(RecordDict(dict(content)), nodes[name], kind, group_id=group) for name in names
        ]
        return list(self.grid.push_messages(messages))

    def replies(self, ids: list[str], count: int, seconds: float = 15.0) -> list[Message]:
        until, got = time.monotonic() + seconds, []
        left = dict.fromkeys(ids)  # what was answered is not asked for again: it counts as lost
        while len(got) < count:
            assert time.monotonic() < until, f"{len(got)} of {count} replies"
            for reply in self.grid.pull_messages(left):
                left.pop(reply.metadata.reply_to_message_id, None)
                got.append(reply)
            time.sleep(0.005)
        return got


@dataclass
class Log:
    """What a line said of itself."""

    events: list[tuple[object, ...]] = field(default_factory=list)

    def connected(self, node_id: int) -> None:
        self.events.append(("connected", node_id))

    def lost(self, reason: str, retry_s: float) -> None:
        self.events.append(("lost", reason))

    def working(self, kind: str) -> None:
        self.events.append(("working", kind))

    def answered(self, kind: str, sent_bytes: int, late: bool) -> None:
        self.events.append(("answered", late))

    def overtaken(self) -> None:
        """Not the line's: what is done on this machine is given up."""
        self.events.append(("overtaken",))

    def unsent(self, reason: str, retry_s: float) -> None:
        self.events.append(("unsent", reason))

    def withheld(self, kind: str, reason: str) -> None:
        self.events.append(("withheld", kind, reason))

    def wait(self, *event: object, seconds: float = 15.0) -> None:
        until = time.monotonic() + seconds
        while not any(seen[: len(event)] == event for seen in self.events):
            assert time.monotonic() < until, self.events
            time.sleep(0.005)


class Person:
    """A volunteer with its own keys; `serve` runs its line in a thread."""

    def __init__(self, town: Town, number: int) -> None:
        self.town = town
        self.name = f"vol{number}"
        self.identity = SigningKey(bytes([number + 1]) * 32)
        self.node_key = ec.derive_private_key(5000 + number, ec.SECP384R1())
        self.coordinator = coordinator_api.CoordinatorClient(
            town.endpoint(), self.identity, town.folder.key().public
        )
        self.log = Log()
        self.stop = threading.Event()
        self.refused: Exception | None = None
        self.thread: threading.Thread | None = None

    def enrol(self, link: str) -> Standing:
        from nomoat.aggregation.protocol.invitation import from_link

        token = from_link(link).token()
        return coordinator_api.enrol(self.coordinator, self.name, self.node_key, token)[0]

    def line(self) -> flower_client.ConnectionSettings:
        return flower_client.ConnectionSettings(
            self.town.endpoint(), self.node_key, (0.02, 0.05), (0.05, 0.2)
        )

    def sealed(self, app: App) -> App:
        belonging = SealParties(self.identity, self.town.folder.key().public, BASE_HASH)
        return sealed(app, belonging)

    def serve(self, app: App = echo, *, seal: bool = True, record: Record = unrecorded) -> None:
        served = self.sealed(app) if seal else app

        def run() -> None:
            try:
                answering = Answering(served, record, self.log.overtaken)
                message_loop.serve(self.line(), answering, self.stop, self.log)
            except Exception as problem:  # noqa: BLE001
                self.refused = problem

        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()

    def leave(self) -> None:
        self.stop.set()
        if self.thread is not None:
            self.thread.join(60)
            assert not self.thread.is_alive()


@pytest.fixture(scope="module")
def town(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Town]:
    """A town; a module's PORT_PROCESSES says through how many it is reached (0 by default)."""
    processes = getattr(request.module, "PORT_PROCESSES", DEFAULT_PROCESSES)
    made = Town(tmp_path_factory.mktemp("town"), processes=processes)
    made.make()
    made.up()
    yield made
    made.down()


@pytest.fixture
def people(town: Town) -> Iterator[Callable[[int], list[Person]]]:
    """Newcomers who have enrolled; they leave when the test ends."""
    here: list[Person] = []

    def join(count: int) -> list[Person]:
        link = town.link()
        for _ in range(count):
            person = Person(town, town.population)
            town.population += 1
            assert person.enrol(link) is Standing.APPROVED
            here.append(person)
        return here[-count:]

    yield join
    for person in here:
        person.leave()


@pytest.fixture
def read() -> Callable[[Message], str]:
    """The word in a message."""
    return word


@pytest.fixture
def make_packet() -> Callable[..., RecordDict]:
    """A content with a word and a body."""
    return packet
