"""Rules for nodes that have proven who they are: hostile ones remain."""

from __future__ import annotations

import logging
import time
from typing import Any

from fastapi import Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse

from nomoat.flower import headers
from nomoat.server.fleet import flower_server
from nomoat.server.port.rate_limit import RateLimit
from nomoat.server.port.request_limits import App, Receive, Scope, Send
from nomoat.server.port.services import PortServices

log = logging.getLogger(__name__)

MAX_WAIT_S = 20.0
PROVEN_KEY = "nomoat.node_key"  # in an ASGI scope: the PEM whose signature was checked


class NodeRules:
    """Refuses what an authenticated node may not do: hurry, reply as another, register a flood.

    Plain ASGI: a BaseHTTPMiddleware costs every request a task and two streams.
    """

    def __init__(self, app: App, services: PortServices) -> None:
        self._app = app
        self._services = services
        self._rate = RateLimit(services.caps.node)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a fleet call on, or refuse it."""
        answer = None
        if scope["type"] == "http":
            answer = await self._refusal(Request(scope))
        await (answer or self._app)(scope, receive, send)

    async def _refusal(self, request: Request) -> Response | None:
        """The answer to a call that may not be made now, None to any other."""
        call = flower_server.call_in(request)
        if call is None:
            return None
        node, state = flower_server.node_of(call), self._services.state
        if (refusal := await self._why_not(request, node, call)) is not None:
            return JSONResponse({"error": refusal[1]}, refusal[0])
        if node:
            state.note_paused(node, headers.PAUSED in request.headers)
            state.note_software(node, request.headers.get(headers.SOFTWARE, ""))
        if flower_server.asks_for_messages(call) and headers.WAIT in request.headers:
            return await self._held(node, request)
        return None

    async def _why_not(self, request: Request, node: int, call: Any) -> tuple[int, str] | None:
        """Status and reason of a call that its node may not make."""
        state, key = self._services.state, self._key(request)
        if key is None and await run_in_threadpool(flower_server.signed_by_its_key, request):
            return 403, "not a member, or not any more"
        if key is None or not await run_in_threadpool(flower_server.is_of, call, key, state):
            return 401, "that is another node"
        if not self._rate.allow(str(node), time.monotonic()):
            return 429, "too many requests; slow down"
        if flower_server.run_of(call) not in (None, state.run_id):
            return 403, "that run is over"
        if not await run_in_threadpool(self._is_its_own, node, call):
            log.warning("node %d: refused what is not its own or too large", node)
            return 400, "not a reply or a message of this node"
        return None

    def _is_its_own(self, node: int, call: Any) -> bool:
        """False of a reply in another's name or too large, and of another's message confirmed."""
        if flower_server.sends_messages(call):
            return flower_server.may_push(call, self._services.max_objects)
        arrived = flower_server.confirmed_by(call)
        return arrived is None or self._services.state.is_addressed_to(node, arrived)

    async def _held(self, node: int, request: Request) -> Response | None:
        """Hold a pull until there is something for it; why it gets nothing, or None."""
        state, have = self._services.state, request.headers.get(headers.HAVE, "")
        await run_in_threadpool(state.offer_again, node, frozenset(have.split(",")))
        if not await state.pulls.wait(node, wait_s(request.headers[headers.WAIT])):
            return JSONResponse({"error": "a newer request took this one's place"}, 409)
        if not await run_in_threadpool(self._may_still_speak, request):
            return JSONResponse({"error": "no longer a member"}, 401)
        return None

    def _may_still_speak(self, request: Request) -> bool:
        """False if it has been banned since it was authenticated, before it waited."""
        key = self._key(request)
        return key is not None and self._services.state.name_of(key) is not None

    @staticmethod
    def _key(request: Request) -> bytes | None:
        """The node key that the request was signed with, as RequestLimits has found."""
        key: bytes | None = request.scope.get(PROVEN_KEY)
        return key


def wait_s(header: str) -> float:
    """Seconds for which a pull may be held until there is something to deliver."""
    return min(float(header), MAX_WAIT_S) if header.isdigit() else 0.0
