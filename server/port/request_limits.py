"""The first thing a request meets: known path, declared size, pace; nothing is read before that.

Flower reads a body before it authenticates its sender, so the caps stand here, outside it. Whatever
is not the fleet protocol or ours does not exist: the control and runtime APIs of a stock SuperLink,
which anybody could call, are answered with 404 (docs/threat-model.md).

What a peer only announces costs nothing: bodies count as they arrive, one that pauses is cut off
after `pause_seconds`, and no body is passed on before the whole of it is here. A member proves in
the head who it is; it is counted by its name and never with the strangers of its address, so that
these cannot lock it out. A stranger's fleet call is refused before a byte of its body is
read, but for the small one that activates a node.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from nomoat.server.port.rate_limit import Rate, RateLimit
from nomoat.server.rounds.watching import Traffic

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

FLEET = "/v1/fleet/"
# Registration, FABs and run details are not for volunteers: enrolment is ours, code is never sent.
FLEET_CALLS = frozenset(
    {
        "activate-node",
        "deactivate-node",
        "send-node-heartbeat",
        "pull-messages",
        "push-messages",
        "pull-object",
        "push-object",
        "confirm-message-received",
    }
)
OURS = re.compile(
    r"/(enroll|leave|erase|community|keys|terms|privacy|edition|addresses|agree|presence|roster|"
    r"versions|lineage|restored|receipts|"
    r"appeal|(?:adapter|evidence)/[0-9a-f]{64}|recovery(?:/lineage|/roster|/adapter/[0-9a-f]{64})?)"
)
OUR_BODY_BYTES = 16 << 10
RECOVERY_BYTES = (4 << 20) + OUR_BODY_BYTES  # from a member, of what it still holds
# Who may not activate a node (any more) is told so, for which the call has to be looked at.
MEMBERS_ONLY = frozenset(FLEET + call for call in FLEET_CALLS - {"activate-node"})
CALL_BYTES = {"push-object": 0, "push-messages": 256 << 10}  # 0: Caps.body_bytes; else the above
SMALL_BYTES = 64 << 10  # bodies below wait in memory until they are whole, others on disk
STATUS_LINE_BYTES = len("HTTP/1.1 200 OK\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\n")


@dataclass(frozen=True, slots=True)
class Caps:
    """Limits of one peer, and of all together."""

    body_bytes: int = 8 << 20
    in_flight_bytes: int = 512 << 20
    body_seconds: float = 120.0
    pause_seconds: float = 10.0  # between two pieces of a body
    address: Rate = field(default=Rate(100, 1000))
    # Enrolment and failed authentication, per address: a school of 200 enrols within a minute.
    stranger: Rate = field(default=Rate(5, 300))
    node: Rate = field(default=Rate(50, 500))


class Cut(Exception):
    """A body that is not waited for any longer, and the answer instead."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class PeerLeft(Exception):
    """The peer left in the middle of its request."""


Proof: TypeAlias = Callable[[Scope], Awaitable[str | None]]


async def anybody(_scope: Scope) -> str | None:
    """Take every request for a stranger's."""
    return None


def allowed(method: str, path: str) -> bool:
    """True if a path exists here at all."""
    if path.startswith(FLEET):
        return method == "POST" and path.removeprefix(FLEET) in FLEET_CALLS
    return method in ("GET", "POST") and OURS.fullmatch(path) is not None


class RequestLimits:
    """ASGI middleware enforcing `caps`. clock: time.monotonic in production.

    member: the member that a request proves to come from; None for a stranger. Without it, fleet
    calls are passed on whoever makes them.
    """

    def __init__(
        self, app: App, caps: Caps, clock: Callable[[], float], member: Proof | None = None
    ) -> None:
        self._app = app
        self._member = member or anybody
        self._members_only = member is not None
        self._members = RateLimit(caps.node)
        self._caps = caps
        self._clock = clock
        self._addresses = RateLimit(caps.address)
        self._strangers = RateLimit(caps.stranger)
        self._in_flight = 0
        self._carried = Traffic()

    @property
    def carried(self) -> Traffic:
        """HTTP bytes so far, heads and bodies of requests (up) and answers (down); TLS and TCP add
        1 to 3 % to large messages and about 200 bytes to a small one.
        """
        return replace(self._carried)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it here."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return  # websockets do not exist here
        address = (scope.get("client") or ("?", 0))[0]
        self._carried.up += request_head_bytes(scope)
        send = self._counted(send)
        member = await self._member(scope) if allowed(scope["method"], scope["path"]) else None
        refusal, length = self._refusal(scope, address, member)
        if refusal:
            await _refuse(send, *refusal)
            return
        body = _Body(self, receive, length)
        try:
            receive = await small_body(body.receive) if length < SMALL_BYTES else body.receive
            await self._app(scope, receive, send if member else self._watched(send, address))
        except Cut as cut:
            await _refuse(send, cut.status, str(cut))
        except PeerLeft:
            return
        finally:
            self._in_flight -= body.arrived

    def _refusal(
        self, scope: Scope, address: str, member: str | None
    ) -> tuple[tuple[int, str] | None, int]:
        path = scope["path"]
        if not allowed(scope["method"], path):
            return (404, "no such path"), 0
        if not self._may_go_on(path, address, member):
            return (429, "too many requests; wait a minute"), 0
        length = content_length(scope)
        if length is None:
            return (411, "the length of the body must be declared"), 0
        if length > self._most_bytes(path, member):
            return (413, "the body is too large"), 0
        if self._members_only and member is None and path in MEMBERS_ONLY:
            self._strangers.allow(address, self._clock())
            return (401, "members prove who they are"), 0
        return None, length

    def _most_bytes(self, path: str, member: str | None) -> int:
        if not path.startswith(FLEET):
            large = member is not None and path.startswith("/recovery")
            return RECOVERY_BYTES if large else OUR_BODY_BYTES
        most = CALL_BYTES.get(path.removeprefix(FLEET), OUR_BODY_BYTES)
        return min(most or self._caps.body_bytes, self._caps.body_bytes)

    def _may_go_on(self, path: str, address: str, member: str | None) -> bool:
        now = self._clock()
        if member is not None:
            return self._members.allow(f"{address} {member}", now)
        stranger_may = (
            self._strangers.has_left(address, now)
            if path.startswith(FLEET)
            else path not in ("/enroll", "/leave") or self._strangers.allow(address, now)
        )
        return self._addresses.allow(address, now) and stranger_may

    def _take(self, size: int) -> None:
        """Count a piece of a body; Cut if there is no room for it beside the others'."""
        if self._in_flight + size > self._caps.in_flight_bytes:
            raise Cut(503, "busy; try again")
        self._in_flight += size
        self._carried.up += size

    def _counted(self, send: Send) -> Send:
        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._carried.down += STATUS_LINE_BYTES + _headers_bytes(message["headers"])
            self._carried.down += len(message.get("body", b""))
            await send(message)

        return counted

    def _watched(self, send: Send, address: str) -> Send:
        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] in (401, 403):
                self._strangers.allow(address, self._clock())
            await send(message)

        return watched


class _Body:
    """The body of one request as it arrives. length: bytes declared; arrived: bytes so far."""

    def __init__(self, limits: RequestLimits, receive: Receive, length: int) -> None:
        self.arrived = 0
        self._limits = limits
        self._receive = receive
        self._length = length
        self._deadline = limits._clock() + limits._caps.body_seconds

    async def receive(self) -> Message:
        """Return the next piece, or what the peer does when all of it is here."""
        if self.arrived >= self._length:
            return await self._receive()
        limits = self._limits
        left_s = min(limits._caps.pause_seconds, self._deadline - limits._clock())
        try:
            async with asyncio.timeout(max(0.0, left_s)):  # wait_for makes a task for each piece
                message = await self._receive()
        except TimeoutError:
            raise Cut(408, "the body did not arrive in time") from None
        size = len(message.get("body", b""))
        limits._take(size)
        self.arrived += size
        return message


async def small_body(receive: Receive) -> Receive:
    """Wait for a whole body and return what gives it again, in one piece. PeerLeft if it ends."""
    pieces, more = [], True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise PeerLeft
        pieces.append(message.get("body", b""))
        more = message.get("more_body", False)
    return replaying(lambda: b"".join(pieces), receive)


def replaying(body: Callable[[], bytes], receive: Receive) -> Receive:
    """Give a body that has been read, then whatever else the peer does."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body(), "more_body": False}

    return replay


def request_head_bytes(scope: Scope) -> int:
    """Size of a request's line and headers, as HTTP/1.1 writes them."""
    line = f"{scope['method']} {scope['path']} HTTP/1.1\r\n".encode()
    query = scope.get("query_string", b"")
    return len(line) + len(query) + bool(query) + _headers_bytes(scope["headers"])


def _headers_bytes(headers: Iterable[tuple[bytes, bytes]]) -> int:
    return sum(len(name) + len(value) + 4 for name, value in headers) + 2


def content_length(scope: Scope) -> int | None:
    """Bytes of body a request declares, None if it does not say."""
    for name, value in scope["headers"]:
        if name == b"transfer-encoding":
            return None
        if name == b"content-length":
            return int(value) if value.isdigit() else None
    return 0 if scope["method"] == "GET" else None


async def _refuse(send: Send, status: int, reason: str) -> None:
    body = json.dumps({"error": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    headers.append((b"connection", b"close"))  # an unread body must not become the next request
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
