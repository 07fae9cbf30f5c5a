"""Broken requests to a coordinator's port, as strangers and as a member send them.

`OpenPort` is the real application over a real folder, called in this process without TLS. What is
sent is drawn from a seed: every path, every message type, odd numbers, cut and bent bytes.
"""

from __future__ import annotations

import asyncio
import base64
import datetime
import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    Message,
    Metadata,
    ObjectTree,
    PullObjectRequest,
    PushObjectRequest,
)
from flwr.proto.node_pb2 import Node

from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.enrolment import PROOF_HEADER, Enrol, bind, prove
from nomoat.aggregation.protocol.invitation import Claims
from nomoat.aggregation.protocol.signing import SigningKey
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
from nomoat.server.port.http_app import make_app
from nomoat.server.port.rate_limit import Rate
from nomoat.server.port.request_limits import FLEET, FLEET_CALLS, Caps
from nomoat.server.port.services import Directory, PortServices

KEY, MEMBER = SigningKey(b"\7" * 32), SigningKey(b"\1" * 32)
NODE = ec.derive_private_key(4000, ec.SECP384R1())
BASE_HASH = b"\xab" * 32
NUMBERS = (0, 1, -1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
TEXTS = ("", "0", "../../etc/passwd", "/etc/passwd", "a" * 64, "f" * 64, "\0", "ü" * 40, "%s%n")
PATHS = (
    *("community", "terms", "enroll", "leave", "roster", "versions", "lineage", "restored"),
    *("receipts", "erase", "presence", "edition", "agree"),
)
QUERIES = ("", "after=0", "after=-1", "after=1e9", f"after={2**63}", "after=٣", "after=", "x=%ff")
UNLIMITED = Rate(1e9, 1e9)


@dataclass(frozen=True)
class Sent:
    """One request."""

    method: str
    path: str
    query: str = ""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""


class OpenPort:
    """A coordinator's port in `folder`, with one member, "ada", and a run that is open."""

    def __init__(self, folder: Path) -> None:
        made = Folder(folder / "community")
        settings = Settings(
            community=CommunitySettings(name="town"),
            base=BaseModelSettings(model="m", folder=Path("m"), hash=BASE_HASH.hex(), bytes=1),
            rounds=CommunityRoundSettings(seed="00" * 32),
            server=ServerSettings(address="localhost:1"),
        )
        create(made, settings, datetime.datetime.now(datetime.UTC), KEY.raw())
        made.flower.mkdir(exist_ok=True)
        self.registrar = Registrar(Database(made.database), KEY, Admission.OPEN)
        self.token = self._admit_ada()
        self.state = FleetState(made.flower, Directory(self.registrar))
        self.grid = FleetGrid(self.state, 60.0)
        registry = VersionStore(self.registrar.database, made.adapters, KEY, BASE_HASH)
        info = describe(made.load(), KEY, made.authority_certificate.read_bytes(), 1000)
        caps = replace(Caps(), address=UNLIMITED, stranger=UNLIMITED, node=UNLIMITED)
        services = PortServices(self.state, self.registrar, registry, info, 20, caps=caps)
        self.app = make_app(services)
        self._run = open_run(self.state, self.grid)
        self.problems: list[Exception] = []
        self.run_id = self._run.__enter__().run_id
        self.node = self.state.get_node_id_by_public_key(_pem())

    def _admit_ada(self) -> bytes:
        now = int(time.time())
        claims = Claims("localhost:1", bytes(32), KEY.public, bytes(16), 9, now + 10_000)
        token = self.registrar.invite(claims).token()
        self.binding = bind("ada", MEMBER, NODE, KEY.public)
        self.registrar.enrol(wire.encode(Enrol(token, self.binding)).head, now)
        return token

    def close(self) -> None:
        """End the run and close its files."""
        self._run.__exit__(None, None, None)
        self.state.close()
        self.registrar.database.close()

    def send(self, requests: Iterator[Sent]) -> list[tuple[int, Sent]]:
        """Send requests one after the other; each with the status it was answered with."""
        return asyncio.run(self._send_all(requests))

    async def _send_all(self, requests: Iterator[Sent]) -> list[tuple[int, Sent]]:
        return [(await self._one(request), request) for request in requests]

    async def _one(self, request: Sent) -> int:
        length = (b"content-length", str(len(request.body)).encode())
        scope = {
            "type": "http", "http_version": "1.1", "scheme": "https", "server": ("localhost", 1),
            "client": ("10.0.0.1", 1), "method": request.method, "path": request.path,
            "raw_path": request.path.encode(), "root_path": "",
            "query_string": request.query.encode(), "headers": [*request.headers, length],
        }  # fmt: skip
        given, statuses = False, []

        async def receive() -> Any:
            nonlocal given
            body, given = (b"", True) if given else (request.body, True)
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        try:
            await self.app(scope, receive, send)
        except Exception as problem:  # noqa: BLE001 - what a server would answer with 500
            self.problems.append(problem)
            return 500
        return int(statuses[0])

    def requests(self, count: int, seed: int) -> Iterator[Sent]:
        """So many requests, the same for the same seed, but for times and signatures."""
        rng = random.Random(seed)
        for _ in range(count):
            yield self._fleet_call(rng) if rng.random() < 0.6 else self._own_path(rng)

    def _own_path(self, rng: random.Random) -> Sent:
        name = rng.choice((*PATHS, "adapter/" + "a" * 64, "adapter/x", "nothing", "roster/../x"))
        method, query = rng.choice(("GET", "POST", "GET", "PUT")), rng.choice(QUERIES)
        body = b""
        if method == "POST":
            token = rng.choice((self.token, b"", rng.randbytes(90)))
            body = _bent(rng, wire.encode(Enrol(token, self.binding)).head)
        proof = rng.choice((None, "", "a.b.c", f"{'0' * 64}.{10**40}.{'0' * 128}", "good"))
        headers: tuple[tuple[bytes, bytes], ...] = ()
        if proof is not None:
            target = f"{method} /{name}" + (f"?{query}" if query else "")
            good = prove(MEMBER, KEY.public, target, int(time.time()))
            if proof == "good":  # it stays: the rest of what is sent is a member's
                proof = good if name not in ("leave", "erase") else good[:-1]
            headers = ((PROOF_HEADER.encode(), proof.encode()),)
        return Sent(method, f"/{name}", query, headers, body)

    def _fleet_call(self, rng: random.Random) -> Sent:
        call = rng.choice(sorted(FLEET_CALLS))
        body = _bent(rng, self._message(rng, call).SerializeToString())
        kind = rng.choice((b"application/protobuf",) * 8 + (b"text/plain", b""))
        signed = rng.random() < 0.85
        headers = [*_signed_head(rng, good=signed), (b"content-type", kind)]
        if rng.random() < 0.3:
            headers.append((b"x-nomoat-have", os.urandom(3).hex().encode()))
        return Sent("POST", FLEET + call, "", tuple(headers), body)

    def _message(self, rng: random.Random, call: str) -> Any:
        node = Node(node_id=rng.choice((self.node or 0,) * 6 + (0, 1, 2**64 - 1)))
        run, text = rng.choice((self.run_id,) * 4 + (0, 2**64 - 1)), rng.choice(TEXTS)
        tree = ObjectTree(object_id=text, children=[ObjectTree(object_id=rng.choice(TEXTS))] * 3)
        metadata = Metadata(
            run_id=run, message_id=rng.choice((text, "x")), src_node_id=node.node_id,
            dst_node_id=rng.choice((1, 0, 2**63)), reply_to_message_id=rng.choice(TEXTS),
            group_id=text, ttl=rng.choice((0.0, 60.0, -1.0, float("nan"), 1e300)),
            message_type=rng.choice(("train.local", "", "query.sa_keys", "x" * 300)),
            created_at=rng.choice((0.0, time.time(), -1e300, float("inf"))),
        )  # fmt: skip
        messages = [Message(metadata=metadata)] * rng.choice((1, 1, 1, 0, 2))
        made = {
            "activate-node": lambda: ActivateNodeRequest(
                public_key=rng.choice((_pem(), b"", b"x")),
                heartbeat_interval=rng.choice((30.0, 0.0, -1.0, float("nan"), 1e308)),
            ),
            "deactivate-node": lambda: DeactivateNodeRequest(node_id=node.node_id),
            "send-node-heartbeat": lambda: SendNodeHeartbeatRequest(
                node=node, heartbeat_interval=rng.choice((30.0, -1.0, float("inf"), 1e300))
            ),
            "pull-messages": lambda: PullMessagesRequest(node=node),
            "push-messages": lambda: PushMessagesRequest(
                node=node, messages_list=messages, message_object_trees=[tree] * len(messages)
            ),
            "pull-object": lambda: PullObjectRequest(node=node, run_id=run, object_id=text),
            "push-object": lambda: PushObjectRequest(
                node=node, run_id=run, object_id=text, object_content=rng.randbytes(40)
            ),
            "confirm-message-received": lambda: ConfirmMessageReceivedRequest(
                node=node, run_id=run, message_object_id=text
            ),
        }
        return made[call]()


def _bent(rng: random.Random, data: bytes) -> bytes:
    """The same bytes, or cut, or with some changed, or others."""
    how = rng.randrange(6)
    if how < 3 or not data:
        return data
    if how == 3:
        return data[: rng.randrange(len(data))]
    if how == 4:
        bent = bytearray(data)
        for _ in range(1 + rng.randrange(4)):
            bent[rng.randrange(len(bent))] = rng.randrange(256)
        return bytes(bent)
    return rng.randbytes(rng.choice((1, 40, 3000)))


def _pem() -> bytes:
    return NODE.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _signed_head(rng: random.Random, *, good: bool) -> list[tuple[bytes, bytes]]:
    """Flower's three headers; with something wrong in them unless `good`."""
    stamp = datetime.datetime.now(datetime.UTC).isoformat()
    if not good:
        stamp = rng.choice((stamp, "", "now", "9999-12-31T23:59:59+00:00", "0001-01-01", "1"))
    signature = NODE.sign(stamp.encode(), ec.ECDSA(hashes.SHA256()))
    if not good:
        signature = rng.choice((signature, b"", bytes(96), b"\xff" * 5000))
    key = _pem() if good or rng.random() < 0.5 else b"-----BEGIN PUBLIC KEY-----"
    return [
        (b"flwr-public-key", base64.b64encode(key)),
        (b"flwr-signature", base64.b64encode(signature)),
        (b"flwr-timestamp", stamp.encode()),
    ]
