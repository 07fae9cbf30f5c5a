"""The first thing a request meets: known path, declared size, pace; nothing is read before that.

Flower reads a body before it authenticates its sender, so the caps stand here, outside it. Whatever
is not the fleet protocol or ours does not exist: the control and runtime APIs of a stock SuperLink,
which anybody could call, are answered with 404 (docs/threat-model.md).
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
OURS = re.compile(r"/(enroll|leave|community|roster|versions|receipts|adapter/[0-9a-f]{64})")
OUR_BODY_BYTES = 16 << 10
STATUS_LINE_BYTES = len("HTTP/1.1 200 OK\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\n")


@dataclass(frozen=True, slots=True)
class Caps:
    """Limits of one peer, and of all together."""

    body_bytes: int = 8 << 20
    in_flight_bytes: int = 512 << 20
    body_seconds: float = 120.0
    address: Rate = field(default=Rate(100, 1000))
    stranger: Rate = field(default=Rate(1, 60))  # enrolment and failed authentication, per address
    node: Rate = field(default=Rate(50, 500))


def allowed(method: str, path: str) -> bool:
    """True if a path exists here at all."""
    if path.startswith(FLEET):
        return method == "POST" and path.removeprefix(FLEET) in FLEET_CALLS
    return method in ("GET", "POST") and OURS.fullmatch(path) is not None


class RequestLimits:
    """ASGI middleware enforcing `caps`. clock: time.monotonic in production."""

    def __init__(self, app: App, caps: Caps, clock: Callable[[], float]) -> None:
        self._app = app
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
        refusal, length = self._refusal(scope, address)
        if refusal:
            await _refuse(send, *refusal)
            return
        self._in_flight += length
        try:
            await self._app(scope, self._bounded(receive, length), self._watched(send, address))
        finally:
            self._in_flight -= length

    def _refusal(self, scope: Scope, address: str) -> tuple[tuple[int, str] | None, int]:
        now, path = self._clock(), scope["path"]
        if not allowed(scope["method"], path):
            return (404, "no such path"), 0
        stranger_may = (
            self._strangers.has_left(address, now)
            if path.startswith(FLEET)
            else path not in ("/enroll", "/leave") or self._strangers.allow(address, now)
        )
        if not self._addresses.allow(address, now) or not stranger_may:
            return (429, "too many requests; wait a minute"), 0
        length = content_length(scope)
        if length is None:
            return (411, "the length of the body must be declared"), 0
        if length > (self._caps.body_bytes if path.startswith(FLEET) else OUR_BODY_BYTES):
            return (413, "the body is too large"), 0
        if self._in_flight + length > self._caps.in_flight_bytes:
            return (503, "busy; try again"), 0
        return None, length

    def _bounded(self, receive: Receive, length: int) -> Receive:
        deadline = self._clock() + self._caps.body_seconds
        left = length

        async def bounded() -> Message:
            nonlocal left
            if left <= 0:  # the body is here; what is awaited now is only the peer's departure
                return await receive()
            message = await asyncio.wait_for(receive(), max(0.0, deadline - self._clock()))
            left -= len(message.get("body", b""))
            self._carried.up += len(message.get("body", b""))
            return message

        return bounded

    def _counted(self, send: Send) -> Send:
        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._carried.down += STATUS_LINE_BYTES + _headers_bytes(message["headers"])
            self._carried.down += len(message.get("body", b""))
            await send(message)

        return counted

    def _watched(self, send: Send, address: str) -> Send:
        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 401:
                self._strangers.allow(address, self._clock())
            await send(message)

        return watched


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
