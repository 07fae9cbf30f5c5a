"""One volunteer's calls to its coordinator: Flower's fleet requests over bounded HTTP.

Uses private flwr interfaces (docs/adr/0002-flower-embedded.md), pinned by tests/end_to_end/line.
"""

from __future__ import annotations

import contextlib
import random
import re
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Message
from flwr.common.constant import HEARTBEAT_DEFAULT_INTERVAL
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto import node_pb2
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import ObjectTree, PullObjectRequest, PushObjectRequest
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from nomoat.aggregation.errors import Refused, RemoteProtocolError, Unreachable
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.wire import COORDINATOR
from nomoat.client.connection.backoff import Backoff, HoldTime
from nomoat.client.connection.bounded_transport import BoundedTransport, skew
from nomoat.client.connection.https import OF_EVERY_REQUEST, Endpoint, tls_context
from nomoat.client.connection.proxies import proxy_for
from nomoat.client.connection.rate_cap import RateCap
from nomoat.flower.carried import OBJECT_BYTES, carried, carry, small
from nomoat.flower.headers import CARRY, HAVE, HOLD, PAUSED, SOFTWARE, WAIT
from nomoat.flower.objects import (
    Objects,
    check_object,
    hashed_once,
    ids_in,
    put_together,
    take_apart,
)
from nomoat.flower.process import silence

MAX_OBJECTS = 300
LATE_S = 30.0  # after which an answer that was due is not waited for
PULL = "/pull-messages"
ERRNO = re.compile(r"^\[Errno -?\d+\] ")  # means nothing to whoever reads it
BEAT_S = 0.75 * HEARTBEAT_DEFAULT_INTERVAL
TIMEOUT_S = 45.0
SIGN_OFF_S = 3.0
HAVE_KEPT = 8
KEPT_BYTES = 32 << 20  # of the last message, for the next one

Node: TypeAlias = node_pb2.Node  # this volunteer, as the coordinator numbers it

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class ConnectionSettings:
    """Settings of the line to a coordinator, whose endpoint has its authority.

    poll_s: least and most between two polls. pause_s: first and longest pause after a failure.
    upload_bytes_s, download_bytes_s: network caps; None: none. paused: says if nothing may be
    trained now. clock: unix time in seconds. software: shown to the coordinator, if anything.
    most_bytes: of a message, more of which is not fetched.
    """

    endpoint: Endpoint
    node_key: ec.EllipticCurvePrivateKey
    poll_s: tuple[float, float] = (1.0, 2.0)
    pause_s: tuple[float, float] = (0.5, 30.0)
    chance: random.Random = field(default_factory=random.Random)
    upload_bytes_s: float | None = None
    download_bytes_s: float | None = None
    paused: Callable[[], bool] = lambda: False
    clock: Callable[[], float] = time.time
    software: str = ""
    most_bytes: Callable[[], int] = lambda: wire.MAX_HEAD_BYTES + wire.MAX_BODY_BYTES

    def backoff(self) -> Backoff:
        """Pauses from the first one on."""
        return Backoff(*self.pause_s, self.chance)


class UnknownNode(Exception):
    """The coordinator does not know this node (any more): it must be activated again."""


class RunEnded(Exception):
    """The coordinator ended the run a message belongs to."""


@dataclass(frozen=True)
class IncomingMessage:
    """A message that waits to be answered."""

    head: Message
    tree: ObjectTree
    carried: Mapping[str, bytes] = field(default_factory=dict)  # objects that came with it


class FleetLine(FleetHttpClient):
    """Flower's requests over an HTTP client of ours, to one address.

    Flower's own follows redirects, and ends in an error on odd proxies of the environment.
    """

    def __init__(
        self,
        connection: ConnectionSettings,
        before: Callable[[httpx.Request], None],
        after: Callable[[httpx.Response], None],
    ) -> None:
        self._base_url = f"https://{connection.endpoint.address}"
        self._interceptors = (
            RuntimeVersionHttpInterceptor(component_name="SuperNode"),
            NodeAuthHttpInterceptor(connection.node_key, connection.node_key.public_key()),
        )
        self._retry_invoker = None
        endpoint = connection.endpoint
        proxy = proxy_for(endpoint.host, endpoint.port)
        self._client = httpx.Client(
            transport=BoundedTransport(tls_context(endpoint), proxy),
            timeout=TIMEOUT_S,
            headers=_headers(connection),
            event_hooks={"request": [before], "response": [after]},
            trust_env=False,
        )


def _headers(connection: ConnectionSettings) -> dict[str, str]:
    """Headers of every request."""
    shown = {SOFTWARE: connection.software} if connection.software else {}
    return {"accept-encoding": "identity", CARRY: "1", **OF_EVERY_REQUEST} | shown


class FlowerClient:
    """Flower's fleet client over one HTTP client that reads bounded answers from one address."""

    def __init__(self, connection: ConnectionSettings) -> None:
        silence()
        self.connection = connection
        self._up = RateCap(connection.upload_bytes_s)
        self._down = RateCap(connection.download_bytes_s)
        self._public = public_key_to_bytes(connection.node_key.public_key())
        self.hold = HoldTime()
        self._fleet = FleetLine(connection, self._say_how_we_are, self._hear)
        self._have: deque[str] = deque(maxlen=HAVE_KEPT)
        self._kept: dict[str, bytes] = {}  # large objects of the last message with any
        self._carries = False  # the coordinator reads objects beside their tree
        self._counting = threading.Lock()
        self._calls = 0  # under way
        self._closing = False

    def __enter__(self) -> FlowerClient:
        return self

    def __exit__(self, *_: object) -> None:
        """Close the line, or leave that to the last call that is under way.

        A socket closed under another thread's read gives its number to the next one opened, whose
        bytes that thread would then take.
        """
        with self._counting:
            self._closing = True
            idle = self._over()
        if idle:
            self._fleet.close()

    def _over(self) -> bool:
        return self._closing and not self._calls

    @contextlib.contextmanager
    def _call(self) -> Iterator[None]:
        with self._counting:
            if self._closing:
                raise Unreachable("the line is closed")
            self._calls += 1
        try:
            yield
        finally:
            with self._counting:
                self._calls -= 1
                last = self._over()
            if last:
                self._fleet.close()

    def activate(self) -> Node:
        """Report for duty; Refused if this key is not (or no longer) a member's."""
        request = ActivateNodeRequest(
            public_key=self._public, heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL
        )
        try:
            answer = self.ask(self._fleet.ActivateNode, request)
        except httpx.HTTPStatusError as problem:
            raise Refused(
                "the coordinator does not admit this volunteer "
                f"(answer {problem.response.status_code})"
            ) from None
        return Node(node_id=answer.node_id)

    def deactivate(self, node: Node) -> None:
        """Sign off, if anybody listens."""
        self._fleet._client.timeout = httpx.Timeout(SIGN_OFF_S)
        try:
            self.ask(self._fleet.DeactivateNode, DeactivateNodeRequest(node_id=node.node_id))
        except (Unreachable, UnknownNode, httpx.HTTPStatusError):
            return

    def beat(self, node: Node) -> None:
        """Say that we are still here; UnknownNode if we are unknown."""
        request = SendNodeHeartbeatRequest(node=node, heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL)
        if not self.ask(self._fleet.SendNodeHeartbeat, request).success:
            raise UnknownNode("the coordinator forgot this node")

    def receive(self, node: Node) -> IncomingMessage | None:
        """The next message, None if there is none (the coordinator may hold this: HoldTime)."""
        asked_at, cut = time.monotonic(), True
        try:
            answer = self.ask(self._fleet.PullMessages, PullMessagesRequest(node=node))
            cut = False
        except (UnknownNode, RunEnded):
            cut = False
            raise
        finally:
            self.hold.ended(time.monotonic() - asked_at, cut=cut)
        if not answer.messages_list or not answer.message_object_trees:
            return None
        incoming = IncomingMessage(
            message_from_proto(answer.messages_list[0]),
            answer.message_object_trees[0],
            carried(answer),
        )
        self._carries = bool(incoming.carried)
        self._have.append(incoming.tree.object_id)
        return incoming

    def fetch(self, node: Node, incoming: IncomingMessage, deadline: float) -> Message:
        """The whole message of a job; RemoteProtocolError if it is not what its tree says.

        A large object of the last message that had any is not fetched again: what was measured is
        mostly what is trained from next.
        """
        ids = list(dict.fromkeys(ids_in(incoming.tree)))
        if len(ids) > MAX_OBJECTS:
            raise RemoteProtocolError(COORDINATOR, wire.SECTION, f"sent {len(ids)} objects")
        contents: dict[str, bytes] = {}
        most = self.connection.most_bytes()
        for object_id in ids:
            kept = self._kept.get(object_id)
            contents[object_id] = kept or self._object(node, incoming, object_id, deadline)
            self._down.keep(0 if kept else len(contents[object_id]))
            if sum(map(len, contents.values())) > most:
                reason = f"sends more than {most} bytes, which is more than was agreed to"
                raise RemoteProtocolError(COORDINATOR, wire.SECTION, reason)
        large = {each: what for each, what in contents.items() if len(what) > OBJECT_BYTES}
        if large:
            self._kept = large if sum(map(len, large.values())) <= KEPT_BYTES else {}
        try:
            return put_together(incoming.tree.object_id, contents)
        except ValueError:
            raise RemoteProtocolError(COORDINATOR, wire.SECTION, "sent something else") from None

    def send(self, node: Node, reply: Message) -> tuple[int, bool]:
        """Hand in a reply: (bytes sent, whether it was still wanted)."""
        with hashed_once():
            objects = take_apart(reply)
            request = PushMessagesRequest(
                node=node,
                messages_list=[message_to_proto(objects.head)],
                message_object_trees=[objects.tree],
            )
            along = self._along(objects)
            carry(request, along)
            self._up.keep(sum(map(len, along.values())))
            answer = self.ask(self._fleet.PushMessages, request)
            taken = carried(answer).keys() & along.keys()
            run_id, sent = reply.metadata.run_id, sum(len(along[each]) for each in taken)
            for object_id in answer.objects_to_push:
                content = objects.content(object_id)
                sent += len(content)
                self._up.keep(len(content))
                push = PushObjectRequest(
                    node=node,
                    run_id=run_id,
                    session_id=answer.session_id,
                    object_id=object_id,
                    object_content=content,
                )
                # "not stored" means that somebody else's equal object is there already
                self.ask(self._fleet.PushObject, push)
        return sent, objects.message_id in {*answer.objects_to_push, *taken}

    def _along(self, objects: Objects) -> dict[str, bytes]:
        """The objects that go with a reply's head: the small ones, if they are read there."""
        if not self._carries:
            return {}
        ids = dict.fromkeys(ids_in(objects.tree))
        few = [each for each in ids if objects.least_bytes(each) <= OBJECT_BYTES]
        return small((each, objects.content(each)) for each in few)

    def _say_how_we_are(self, request: httpx.Request) -> None:
        """Name the last messages that arrived, so that one lost is offered again; say if paused.

        A pull may be held, not always for as long: those who came at once are not to come back so.
        """
        request.headers[HAVE] = ",".join(self._have)
        if self.connection.paused():
            request.headers[PAUSED] = "1"
        if request.url.path.endswith(PULL):
            wait_s = round(self.hold.seconds * self.connection.chance.uniform(0.8, 1.0))
            request.headers[WAIT] = str(wait_s)
            request.extensions["timeout"] = httpx.Timeout(TIMEOUT_S, read=wait_s + LATE_S).as_dict()

    def _hear(self, response: httpx.Response) -> None:
        """Note for how long the coordinator holds pulls."""
        if response.request.url.path.endswith(PULL) and response.is_success:
            self.hold.offer(response.headers.get(HOLD, ""))

    def _object(
        self, node: Node, incoming: IncomingMessage, object_id: str, deadline: float
    ) -> bytes:
        content = incoming.carried.get(object_id, b"")
        if not content:
            content = self._asked_for(node, incoming, object_id, deadline)
        try:
            check_object(object_id, content)
        except ValueError:
            reason = "sent an object it did not name"
            raise RemoteProtocolError(COORDINATOR, wire.SECTION, reason) from None
        return content

    def _asked_for(
        self, node: Node, incoming: IncomingMessage, object_id: str, deadline: float
    ) -> bytes:
        request = PullObjectRequest(
            node=node, run_id=incoming.head.metadata.run_id, object_id=object_id
        )
        pause = 0.05
        while True:
            answer = self.ask(self._fleet.PullObject, request)
            if not answer.object_found:
                raise RunEnded("the message was taken back")
            if answer.object_available:
                return bytes(answer.object_content)
            if time.monotonic() > deadline:
                raise Unreachable("the coordinator did not finish sending")
            time.sleep(pause)  # it is still storing what it announced
            pause = min(2 * pause, 2.0)

    def ask(self, method: Callable[..., Answer], request: object) -> Answer:
        """Make one call; Unreachable, UnknownNode (401), RunEnded (403), else httpx's error."""
        try:
            with self._call():
                return method(request)
        except httpx.HTTPStatusError as problem:
            status = problem.response.status_code
            if status in (409, 429, 500, 502, 503, 504):
                said = "another with these keys runs: end it" if status == 409 else status
                raise Unreachable(f"{self.connection.endpoint.address} answers {said}") from None
            if status == 401:
                skewed = skew(problem.response, self.connection.clock())
                raise UnknownNode(
                    skewed or "the coordinator does not recognise this node"
                ) from None
            if status == 403 and not isinstance(request, ActivateNodeRequest):
                raise RunEnded("the run has ended") from None
            raise
        except (httpx.TransportError, ssl.SSLError, ValueError) as problem:
            reason = ERRNO.sub("", str(problem))[:150] or type(problem).__name__
            raise Unreachable(f"{self.connection.endpoint.address}: {reason}") from None
