"""Attacks by an enrolled member, whose every call is authentic."""

from __future__ import annotations

import base64
import contextlib
import datetime
import functools
import os
import random
import ssl
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    ActivateNodeResponse,
    PullMessagesRequest,
    PullMessagesResponse,
    PushMessagesRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import Message, Metadata, ObjectTree, PushObjectRequest
from flwr.proto.node_pb2 import Node

from assault.connections import Attack, call
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.enrolment import Enrol, bind
from nomoat.aggregation.protocol.invitation import from_link
from nomoat.aggregation.protocol.signing import SigningKey

MemberAttack: TypeAlias = Callable[["Mallory", Attack], None]
REPLIES = 40  # to one request
CALLS = (
    b"pull-messages", b"push-messages", b"pull-object", b"push-object", b"send-node-heartbeat",
    b"confirm-message-received",
)  # fmt: skip


@dataclass
class Mallory:
    """A member that enrolled like everybody, and speaks to the port by hand."""

    port: int
    link: str
    name: str = "mallory"
    identity: SigningKey = field(default_factory=lambda: SigningKey(os.urandom(32)))
    key: Any = field(default_factory=lambda: ec.generate_private_key(ec.SECP384R1()))
    node: int = 0
    run: int = 0
    asked: list[Any] = field(default_factory=list)  # requests it was sent, Flower's Message

    def join(self) -> None:
        """Enrol, and come online."""
        invitation = from_link(self.link)
        binding = bind(self.name, self.identity, self.key, invitation.claims.community)
        request = wire.encode(Enrol(invitation.token(), binding)).head
        self._post("/enroll", request, {})
        self.come_online()

    def come_online(self) -> None:
        """Say that it is there; its node's number stays."""
        answer = ActivateNodeResponse()
        answer.ParseFromString(
            self.post(
                "activate-node",
                ActivateNodeRequest(public_key=self._pem(), heartbeat_interval=30.0),
            )
        )
        self.node = answer.node_id

    def stay_online(self) -> None:
        """Be one of those who are asked."""
        here = SendNodeHeartbeatRequest(node=Node(node_id=self.node), heartbeat_interval=30.0)
        self.post("send-node-heartbeat", here)

    def pull(self) -> None:
        """Ask for work, and note what is asked."""
        found = PullMessagesResponse()
        asked = PullMessagesRequest(node=Node(node_id=self.node))
        found.ParseFromString(self.post("pull-messages", asked))
        self.asked += found.messages_list
        for message in found.messages_list:
            self.run = message.metadata.run_id

    def post(self, name: str, message: Any) -> bytes:
        """An authentic fleet call; its answer."""
        return self._post(f"/v1/fleet/{name}", message.SerializeToString(), self.signed())

    def signed(self) -> dict[str, str]:
        """Flower's three headers, as of now."""
        stamp = datetime.datetime.now(datetime.UTC).isoformat()
        signature = self.key.sign(stamp.encode(), ec.ECDSA(hashes.SHA256()))
        return {
            "flwr-public-key": base64.b64encode(self._pem()).decode(),
            "flwr-signature": base64.b64encode(signature).decode(),
            "flwr-timestamp": stamp,
        }

    def head(self) -> bytes:
        """The same, as bytes of a head."""
        return b"".join(f"{name}: {value}\r\n".encode() for name, value in self.signed().items())

    def _pem(self) -> bytes:
        pem: bytes = self.key.public_key().public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        )
        return pem

    def _post(self, path: str, body: bytes, headers: dict[str, str]) -> bytes:
        url = f"https://127.0.0.1:{self.port}{path}"
        kind = {"content-type": "application/protobuf"}
        request = urllib.request.Request(url, body, kind | headers)
        with urllib.request.urlopen(request, timeout=10, context=_unverified()) as answer:
            read: bytes = answer.read()
        return read


@functools.cache
def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def silent_member(mallory: Mallory, attack: Attack) -> None:
    """Be there, and answer nothing."""
    with contextlib.suppress(OSError):  # too many calls before, perhaps
        mallory.come_online()
    while not attack.over.wait(5):
        with contextlib.suppress(OSError):
            mallory.stay_online()


def slow_bodies(mallory: Mallory, attack: Attack) -> None:
    """Forty authentic calls whose bodies come a byte at a time."""
    while not attack.over.wait(0.5):
        while len(attack.sockets) < 40 and not attack.over.is_set():
            attack.say(call(b"push-object", 4 << 20, headers=mallory.head()), listen=False)
        for line in list(attack.sockets):
            try:
                line.sendall(b"\x0a")
            except OSError:
                attack.sockets.remove(line)


def giant_messages(mallory: Mallory, attack: Attack) -> None:
    """Eight megabytes of protobuf in a control message, five a second."""
    body = b"\x0a\x00" * (4 << 20)
    while not attack.over.wait(0.2):
        for name in (b"pull-messages", b"push-messages", b"send-node-heartbeat"):
            attack.say(call(name, len(body), body, mallory.head()))


def junk_replies(mallory: Mallory, attack: Attack) -> None:
    """Replies to what it is asked, with trees of objects that are never sent, or are noise."""
    with contextlib.suppress(OSError):
        mallory.come_online()
    while not attack.over.wait(0.1):
        with contextlib.suppress(OSError):
            mallory.stay_online()
            mallory.pull()
        attack.noted = f"asked {len(mallory.asked)} times"
        for asked in mallory.asked[-3:]:
            _reply(mallory, attack, asked)


def _reply(mallory: Mallory, attack: Attack, asked: Any) -> None:
    for number in range(REPLIES):
        parts = [ObjectTree(object_id=os.urandom(32).hex()) for _ in range(4)]
        tree = ObjectTree(object_id=os.urandom(32).hex(), children=parts)
        about = Metadata(
            run_id=mallory.run, message_id=tree.object_id, src_node_id=mallory.node, dst_node_id=1,
            reply_to_message_id=asked.metadata.message_id, group_id=asked.metadata.group_id,
            ttl=3600.0, message_type=asked.metadata.message_type, created_at=time.time(),
        )  # fmt: skip
        pushed = PushMessagesRequest(
            node=Node(node_id=mallory.node),
            messages_list=[Message(metadata=about)],
            message_object_trees=[tree],
        )
        _say(mallory, attack, "push-messages", pushed)
        if number % 2:  # half of a report comes, and is not what its name says
            half = PushObjectRequest(
                node=Node(node_id=mallory.node), run_id=mallory.run,
                object_id=parts[0].object_id, object_content=os.urandom(1 << 16),
            )  # fmt: skip
            _say(mallory, attack, "push-object", half)


def replayed_calls(mallory: Mallory, attack: Attack) -> None:
    """One authentic call, again and again, and its signature on other calls."""
    body = PullMessagesRequest(node=Node(node_id=mallory.node)).SerializeToString()
    head = mallory.head()
    while not attack.over.wait(0.05):
        attack.say(call(b"pull-messages", len(body), body, head))
        attack.say(call(b"push-object", len(body), body, head))


def bent_calls(mallory: Mallory, attack: Attack) -> None:
    """Authentic calls of every kind whose content was cut, bent or is noise, as fast as they go."""
    rng = random.Random(0)
    node = Node(node_id=mallory.node)
    whole = PullMessagesRequest(node=node).SerializeToString()
    while not attack.over.wait(0.002):
        bent = bytearray(rng.choice((whole, rng.randbytes(60), rng.randbytes(3000))))
        for _ in range(rng.randrange(4)):
            bent[rng.randrange(len(bent))] = rng.randrange(256)
        body = bytes(bent[: rng.randrange(1, len(bent) + 1)])
        name = rng.choice(CALLS)
        attack.say(call(name, len(body), body, mallory.head()))


def _say(mallory: Mallory, attack: Attack, name: str, message: Any) -> None:
    body = message.SerializeToString()
    attack.say(call(name.encode(), len(body), body, mallory.head()))


MEMBERS: tuple[MemberAttack, ...] = (
    slow_bodies,
    giant_messages,
    junk_replies,
    replayed_calls,
    bent_calls,
)


def by(mallory: Mallory) -> list[Callable[[Attack], None]]:
    """The attacks of an enrolled member, under their names."""
    made: list[Callable[[Attack], None]] = []
    for one in MEMBERS:
        bound = partial(one, mallory)
        functools.update_wrapper(bound, one)
        made.append(bound)
    return made
