"""Thousands of volunteers in one event loop: one thread, one connection and one handshake each.

    python -m deployed.lines ROOT NUMBER BASE [beat] < a link

Cheap on purpose, so that the machine is left to the coordinator: keys stay in memory, everybody
shares one verified roster and one TLS context, a call is written by hand instead of by httpx, and
a signature serves for a minute. Each has keys of its own, enrols, and answers rounds with the
product's code (crowd.py: training by arithmetic); with `beat` it sends heartbeats instead, one
after the other. PER_ADDRESS of them come from one address of 127/8. Prints how many have enrolled
and activated, connections lost and heartbeats answered; ends when standard input does.
"""

from __future__ import annotations

import asyncio
import asyncio.sslproto
import base64
import math
import os
import resource
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Context, Message, RecordDict
from flwr.common.constant import HEARTBEAT_DEFAULT_INTERVAL, TIMESTAMP_HEADER
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto import fleet_pb2, heartbeat_pb2, message_pb2, node_pb2
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.date import now as flower_now
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE

from deployed.crowd import participant
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.enrolment import (
    PROOF_HEADER,
    CommunityInfo,
    Enrol,
    Enrolled,
    bind,
    check_answer,
    enrolling,
    prove,
)
from nomoat.aggregation.protocol.invitation import from_link
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.client.connection import coordinator_api
from nomoat.client.connection.coordinator_api import CoordinatorClient
from nomoat.client.connection.https import Endpoint, tls_context
from nomoat.client.membership.roster_cache import RosterCache
from nomoat.client.membership.roster_file import RosterFile
from nomoat.client.settings import VolunteerSettings
from nomoat.flower import headers
from nomoat.flower.carried import OBJECT_BYTES, carried, carry, small
from nomoat.flower.objects import ids_in, put_together, take_apart
from nomoat.flower.process import silence

PER_ADDRESS = 100
COMING_AT_ONCE = 64
PULL_S = 45
BEAT_S = 20.0  # while an answer is worked on
RETRY_S = 1.0
SIGN_EVERY_S = 60.0  # a signature is good for five minutes
SAY_S = 0.5
TLS_BUFFER_BYTES = 16 << 10


@dataclass
class Shared:
    """The parts that all lines have in common. token: of an invitation for all of them."""

    info: CommunityInfo
    endpoint: Endpoint
    token: bytes
    root: Path
    base: Path
    pool: ThreadPoolExecutor
    coming: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(COMING_AT_ONCE))
    roster: RosterCache | None = None
    enrolled: int = 0
    lines: int = 0  # that have activated
    lost: int = 0  # connections
    calls: int = 0  # heartbeats
    beating: bool = False  # heartbeats instead of pulls, one after the other

    def cache(self, coordinator: CoordinatorClient) -> RosterCache:
        """One verified roster for all: each would verify every entry otherwise."""
        if self.roster is None:
            self.root.mkdir(exist_ok=True)
            self.roster = RosterCache(RosterFile(self.root), coordinator)
        return self.roster


class Line:
    """One volunteer."""

    def __init__(self, index: int, shared: Shared) -> None:
        self._shared = shared
        self._name = f"v{index:05d}"
        at = index // PER_ADDRESS
        self._address = f"127.0.{1 + at // 250}.{1 + at % 250}"
        self._identity = SigningKey(os.urandom(32))
        self._key = ec.generate_private_key(ec.SECP384R1())
        self._public = public_key_to_bytes(self._key.public_key())
        self._shown = base64.b64encode(self._public).decode()
        self._node = node_pb2.Node()
        self._have: deque[str] = deque(maxlen=8)
        self._signed_at, self._stamp, self._signature = -math.inf, "", ""
        self._app: Any = None
        self._context: Context | None = None

    async def live(self) -> None:
        """Enrol, report for duty, and wait for work; anew whenever the connection breaks."""
        enrolled = False
        while True:
            try:
                async with self._shared.coming:
                    await self._connect()
                    if not enrolled:
                        await self._enrol()
                        enrolled = True
                    await self._activate()
                while True:
                    await (self._beat() if self._shared.beating else self._pull())
            except (OSError, EOFError, asyncio.IncompleteReadError, RuntimeError) as problem:
                self._shared.lost += 1
                sys.stderr.write(f"{self._name}: {type(problem).__name__} {problem}\n")
                await asyncio.sleep(RETRY_S)

    async def _connect(self) -> None:
        endpoint = self._shared.endpoint
        self._reader, self._writer = await asyncio.open_connection(
            endpoint.host,
            endpoint.port,
            ssl=tls_context(endpoint),
            server_hostname=endpoint.host,
            local_addr=(self._address, 0),
            ssl_handshake_timeout=120,
        )

    async def _ask(self, path: str, body: bytes, heads: Mapping[str, str]) -> bytes:
        """One request; its answer's body. RuntimeError unless that is 200."""
        lines = [f"POST {path} HTTP/1.1", "host: localhost", f"content-length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in heads.items()]
        self._writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(head.partition("content-length:")[2].partition("\r\n")[0] or 0)
        answer = await self._reader.readexactly(length)
        if " 200 " not in head.partition("\r\n")[0]:
            raise RuntimeError(f"{path}: {head.partition(chr(13))[0]} {answer[:200]!r}")
        return answer

    async def _enrol(self) -> None:
        shared = self._shared
        binding = bind(self._name, self._identity, self._key, shared.info.public)
        request = wire.encode(Enrol(shared.token, binding))
        target, now = enrolling(request.head), int(time.time())
        proof = {PROOF_HEADER: prove(self._identity, shared.info.public, target, now)}
        said = await self._ask("/enroll", request.head, proof)
        reply = wire.decode(wire.Packet(said), Enrolled, "coordinator")
        check_answer(reply, request, shared.info.public)
        shared.enrolled += 1

    async def _activate(self) -> None:
        request = fleet_pb2.ActivateNodeRequest(
            public_key=self._public, heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL
        )
        answer = await self._call("activate-node", request, fleet_pb2.ActivateNodeResponse)
        self._node = node_pb2.Node(node_id=answer.node_id)
        self._shared.lines += 1

    async def _call(self, path: str, request: Any, kind: Any, **further: str) -> Any:
        if time.monotonic() - self._signed_at > SIGN_EVERY_S:
            self._signed_at, self._stamp = time.monotonic(), flower_now().isoformat()
            signed = self._key.sign(self._stamp.encode(), ec.ECDSA(hashes.SHA256()))
            self._signature = base64.b64encode(signed).decode()
        heads = {
            "content-type": PROTOBUF_MEDIA_TYPE,
            FLEET_HTTP_PUBLIC_KEY_HEADER: self._shown,
            TIMESTAMP_HEADER: self._stamp,
            FLEET_HTTP_SIGNATURE_HEADER: self._signature,
            headers.CARRY: "1",
            headers.HAVE: ",".join(self._have),
            **further,
        }
        body = await self._ask(f"/v1/fleet/{path}", request.SerializeToString(), heads)
        return kind.FromString(body)

    async def _beat(self) -> None:
        request = heartbeat_pb2.SendNodeHeartbeatRequest(
            node=self._node, heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL
        )
        kind = heartbeat_pb2.SendNodeHeartbeatResponse
        await self._call("send-node-heartbeat", request, kind)
        self._shared.calls += 1

    async def _pull(self) -> None:
        request = fleet_pb2.PullMessagesRequest(node=self._node)
        wait = {headers.WAIT: str(PULL_S)}
        answer = await self._call("pull-messages", request, fleet_pb2.PullMessagesResponse, **wait)
        if not answer.messages_list:
            return
        tree = answer.message_object_trees[0]
        self._have.append(tree.object_id)
        run = message_from_proto(answer.messages_list[0]).metadata.run_id
        message = await self._whole(run, tree, dict(carried(answer)))
        if message is None:
            return
        work = asyncio.get_running_loop().run_in_executor(self._shared.pool, self._answer, message)
        while not (await asyncio.wait([work], timeout=BEAT_S))[0]:
            await self._beat()
        reply = work.result()
        await self._send(run, reply, bool(carried(answer)))

    async def _whole(self, run: int, tree: Any, contents: dict[str, bytes]) -> Message | None:
        """The message of a tree; None if it was taken back."""
        for each in dict.fromkeys(ids_in(tree)):
            while each not in contents:
                request = message_pb2.PullObjectRequest(node=self._node, run_id=run, object_id=each)
                answer = await self._call("pull-object", request, message_pb2.PullObjectResponse)
                if not answer.object_found:
                    return None
                if answer.object_available:
                    contents[each] = bytes(answer.object_content)
                else:
                    await asyncio.sleep(0.1)
        return put_together(tree.object_id, contents)

    def _answer(self, message: Message) -> Message:
        shared, run = self._shared, message.metadata.run_id
        if self._app is None:
            coordinator = CoordinatorClient(shared.endpoint, self._identity, shared.info.public)
            settings = VolunteerSettings(
                address=shared.endpoint.address, name=self._name, data=shared.root,
                base=str(shared.base), device="cpu",
            )  # fmt: skip
            with _ROSTER:
                cache = shared.cache(coordinator)
            self._app = participant(settings, shared.info, coordinator, cache)
            self._context = Context(run, self._node.node_id, {}, RecordDict(), {})
        assert self._context is not None
        reply: Message = self._app(message, self._context)
        return reply

    async def _send(self, run: int, reply: Message, carries: bool) -> None:
        objects = take_apart(reply)
        request = fleet_pb2.PushMessagesRequest(
            node=self._node,
            messages_list=[message_to_proto(objects.head)],
            message_object_trees=[objects.tree],
        )
        few = [
            each
            for each in dict.fromkeys(ids_in(objects.tree))
            if carries and objects.least_bytes(each) <= OBJECT_BYTES
        ]
        carry(request, small((each, objects.content(each)) for each in few))
        answer = await self._call("push-messages", request, fleet_pb2.PushMessagesResponse)
        for each in answer.objects_to_push:
            push = message_pb2.PushObjectRequest(
                node=self._node,
                run_id=run,
                session_id=answer.session_id,
                object_id=each,
                object_content=objects.content(each),
            )
            await self._call("push-object", push, message_pb2.PushObjectResponse)


_ROSTER = threading.Lock()


async def hold(shared: Shared, number: int) -> None:
    """Bring `number` lines together, and hold them."""
    asyncio.sslproto.SSLProtocol.max_size = TLS_BUFFER_BYTES
    tasks = [asyncio.create_task(Line(index, shared).live()) for index in range(number)]
    said = (-1, -1, -1, -1)
    while tasks:
        now = (shared.enrolled, shared.lines, shared.lost, shared.calls)
        if now != said:
            sys.stdout.write("{} {} {} {}\n".format(*now))
            sys.stdout.flush()
            said = now
        await asyncio.sleep(SAY_S)


def main() -> None:
    """Bring everybody together, then wait for the end of standard input."""
    root, number, base = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, number + 500)), hard))
    invitation = from_link(sys.stdin.readline().strip())
    first = coordinator_api.endpoint_of(invitation)
    info = coordinator_api.look(first, invitation.claims.community, int(time.time()))
    endpoint = Endpoint.at(invitation.claims.address, ca=info.ca)
    silence()

    def end() -> None:
        sys.stdin.read()
        os._exit(0)  # nobody waits for thousands of lines

    threading.Thread(target=end, daemon=True).start()
    pool = ThreadPoolExecutor(os.cpu_count() or 1)
    shared = Shared(info, endpoint, invitation.token(), root, base, pool)
    shared.beating = sys.argv[4:] == ["beat"]
    asyncio.run(hold(shared, number))


if __name__ == "__main__":
    main()
