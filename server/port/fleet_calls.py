"""Calls of Flower's fleet protocol by nodes that have proven who they are: hostile ones remain.

A call is judged and made in one turn of one thread, and a pull that is held open has no thread
while it waits: a thousand that wait cost what they hold in memory.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from fastapi import Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse

from nomoat.flower import headers
from nomoat.server.fleet import flower_server
from nomoat.server.fleet.flower_server import CallRefused
from nomoat.server.fleet.held_pulls import AwaitedPull, HeldPull
from nomoat.server.fleet.node_signature import PROVEN_KEY
from nomoat.server.port.carried_objects import CarriedObjects
from nomoat.server.port.rate_limit import RateLimit
from nomoat.server.port.request_limits import Receive, Scope, Send
from nomoat.server.port.services import PortServices

log = logging.getLogger(__name__)

MAX_WAIT_S = 50  # less than the minute after which proxies give up
HELD = {headers.HOLD: str(MAX_WAIT_S)}


class FleetCalls:
    """Makes fleet calls, and refuses what an authenticated node may not do.

    That is to hurry, to reply as another, to register a flood. Pulls count as heartbeats.
    """

    def __init__(self, services: PortServices) -> None:
        self._services = services
        self._state = services.state
        self._rate = RateLimit(services.caps.node)
        self._carried = CarriedObjects(services.state)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        try:
            call = flower_server.parsed(scope["path"], request, await request.body())
            response = await self._answer(request, call)
        except Exception as problem:  # noqa: BLE001 - hostile bytes; flwr raises whatever it likes
            response = refused(scope["path"], problem)
        await response(scope, receive, send)

    async def _answer(self, request: Request, call: Any) -> Response:
        if not may_be_held(request, call):
            return await run_in_threadpool(self.at_once, request, call)
        held = AwaitedPull(asyncio.get_running_loop(), asyncio.Event())
        await run_in_threadpool(self.begin, request, call, held)
        pulls, wait = self._state.pulls, request.headers[headers.WAIT]
        newest = await pulls.wait(flower_server.node_of(call), held, wait_s(wait))
        return await run_in_threadpool(self.end, request, call, newest=newest)

    def at_once(self, request: Request, call: Any) -> Response:
        """Judge a call and make it."""
        self._judge(request, call)
        return self._made(request, call)

    def begin(self, request: Request, call: Any, held: HeldPull) -> None:
        """Judge a pull and have it wait, unless there is something for its node."""
        self._judge(request, call)
        node, have = flower_server.node_of(call), request.headers.get(headers.HAVE, "")
        self._state.offer_again(node, frozenset(have.split(",")))
        self._state.keep_online(node)
        self._state.pulls.begin(node, held)

    def end(self, request: Request, call: Any, *, newest: bool) -> Response:
        """Answer a pull that has waited; its node may have been banned since it was judged.

        newest: of its node (HeldPulls.over).
        """
        if not newest:
            raise CallRefused(409, "a newer request took this one's place")
        key = request.scope.get(PROVEN_KEY)
        if key is None or self._state.name_of(key) is None:
            raise CallRefused(401, "no longer a member")
        self._state.keep_online(flower_server.node_of(call))
        return self._made(request, call)

    def _made(self, request: Request, call: Any) -> Response:
        answer = flower_server.make(request.url.path, call, self._state)
        asks = flower_server.asks_for_messages(call)
        if asks and headers.CARRY in request.headers:
            self._carried.give(answer)
        elif flower_server.sends_messages(call):
            self._carried.take(call, answer)
        media_type = flower_server.MEDIA_TYPE
        return Response(answer.SerializeToString(), 200, HELD if asks else None, media_type)

    def _judge(self, request: Request, call: Any) -> None:
        """Raise CallRefused of a call that its node may not make now; note how the node is."""
        state, key, node = self._state, request.scope.get(PROVEN_KEY), flower_server.node_of(call)
        if key is None and flower_server.signed_by_its_key(request):
            raise CallRefused(403, "not a member, or not any more")
        if key is None or not flower_server.is_of(call, key, state):
            raise CallRefused(401, "that is another node")
        if not self._rate.allow(str(node or key.hex()), time.monotonic()):
            raise CallRefused(429, "too many requests; slow down")
        if flower_server.run_of(call) not in (None, state.run_id):
            raise CallRefused(403, "that run is over")
        if not self._is_its_own(node, call):
            log.warning("node %d: refused what is not its own or too large", node)
            raise CallRefused(400, "not a reply or a message of this node")
        if node:
            state.note_paused(node, headers.PAUSED in request.headers)
            state.note_software(node, request.headers.get(headers.SOFTWARE, ""))

    def _is_its_own(self, node: int, call: Any) -> bool:
        """False of a reply in another's name or too large, and of another's message confirmed."""
        if flower_server.sends_messages(call):
            return flower_server.may_push(call, self._services.max_objects)
        arrived = flower_server.confirmed_by(call)
        return arrived is None or self._state.is_addressed_to(node, arrived)


def may_be_held(request: Request, call: Any) -> bool:
    """True of a pull whose sender waits for a message."""
    return flower_server.asks_for_messages(call) and headers.WAIT in request.headers


def refused(path: str, problem: Exception) -> Response:
    """The answer to a call that raised `problem`."""
    if isinstance(problem, CallRefused):
        return JSONResponse(problem.content, problem.status)
    log.warning("%s: no answer (%s)", path, type(problem).__name__)
    return JSONResponse({"detail": "Internal server error."}, 500)


def wait_s(header: str) -> float:
    """Seconds for which a pull may be held until there is something to deliver."""
    short = header.isascii() and header.isdigit() and len(header) <= 9
    return min(float(header), MAX_WAIT_S) if short else 0.0
