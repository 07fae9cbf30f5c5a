"""The coordinator's one port: Flower's fleet protocol, enrolment, and what members may download.

A FastAPI app with Flower's fleet router and its node authentication; no SuperLink is started and no
other Flower API is reachable (gate.py). Uses private flwr interfaces: see grid.py.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)
from fastapi import FastAPI, Request, Response
from flwr.proto.fleet_pb2 import PullMessagesRequest, PushMessagesRequest
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER
from flwr.supercore.error import http_error_translator
from flwr.supercore.protobuf.translation import ProtobufTranslationMiddleware
from flwr.superlink.routers.fleet.node_auth import NodeAuthMiddleware
from flwr.superlink.routers.fleet.router import router as fleet_router
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import FileResponse, JSONResponse

from nomoat.aggregation.errors import NomoatError, Refused, RemoteProtocolError, UsageError
from nomoat.aggregation.protocol import lineage, wire
from nomoat.aggregation.protocol.enrolment import (
    PROOF_HEADER,
    CommunityInfo,
    Standing,
    check_proof,
)
from nomoat.aggregation.protocol.receipts import PAGE, Receipts
from nomoat.flower import headers
from nomoat.flower.objects import ids_in
from nomoat.server.community.members import Registrar
from nomoat.server.community.versions import VersionStore
from nomoat.server.port.body_buffer import BodyBuffer
from nomoat.server.port.link_state import FleetState
from nomoat.server.port.rate_limit import RateLimit
from nomoat.server.port.request_limits import FLEET, App, Caps, Receive, RequestLimits, Scope, Send
from nomoat.server.port.sealed_grid import Addressee

log = logging.getLogger(__name__)

WIRE = "application/octet-stream"
MAX_WAIT_S = 20.0


class Directory:
    """Node keys (PEM) of those who may speak, from the roster; follows it as it grows."""

    def __init__(self, registrar: Registrar) -> None:
        self._registrar = registrar
        self._known: tuple[int, dict[bytes, Addressee]] = (-1, {})  # replaced whole: threads

    def __call__(self, pem: bytes) -> str | None:
        """The volunteer with this node key, if it may speak."""
        found = self.addressee(pem)
        return None if found is None else found.name

    def addressee(self, pem: bytes) -> Addressee | None:
        """Name and identity of the volunteer with this node key, if it may speak."""
        roster = self._registrar.roster()
        length, by_pem = self._known
        if roster.length != length:
            by_pem = {
                to_pem(member.binding.node_key): Addressee(name, member.binding.identity)
                for name, member in roster.members.items()
                if member.standing is Standing.APPROVED
            }
            self._known = (roster.length, by_pem)
        return by_pem.get(pem)


def to_pem(der: bytes) -> bytes:
    """A public key as Flower spells it."""
    key = load_der_public_key(der)
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@dataclass(frozen=True)
class PortServices:
    """What the port serves. info: the community's signed description at a unix time.

    max_objects: most Flower objects one reply may be made of. clock: unix time.
    """

    state: FleetState
    registrar: Registrar
    registry: VersionStore
    info: Callable[[int], CommunityInfo]
    max_objects: int
    caps: Caps = field(default_factory=Caps)
    clock: Callable[[], float] = time.time

    def now(self) -> int:
        """Unix time in seconds."""
        return int(self.clock())


class NodeRules:
    """What an authenticated node may still not do: hurry, reply as another, register a flood.

    Plain ASGI: a BaseHTTPMiddleware costs every request a task and two streams.
    """

    def __init__(self, app: App, desk: PortServices) -> None:
        self._app = app
        self._desk = desk
        self._pace = RateLimit(desk.caps.node)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a fleet call on, or refuse it."""
        answer = None
        if scope["type"] == "http":
            answer = await self._refusal(Request(scope))
        await (answer or self._app)(scope, receive, send)

    async def _refusal(self, request: Request) -> Response | None:
        """The answer to a call that may not be made now, None to any other."""
        call = getattr(request.state, "protobuf_request", None)
        if call is None:
            return None
        node = call.node.node_id if hasattr(call, "node") else getattr(call, "node_id", 0)
        if not self._pace.allow(str(node), time.monotonic()):
            return JSONResponse({"error": "too many requests; slow down"}, 429)
        if run_of(call) not in (None, self._desk.state.run_id):
            return JSONResponse({"error": "that run is over"}, 403)
        if isinstance(call, PushMessagesRequest) and not may_push(call, self._desk.max_objects):
            log.warning("node %d: refused a reply that is not its own or too large", node)
            return JSONResponse({"error": "not a reply this node may send"}, 400)
        if isinstance(call, PullMessagesRequest) and headers.WAIT in request.headers:
            return await self._held(node, request)
        return None

    async def _held(self, node: int, request: Request) -> Response | None:
        """Hold a pull until there is something for it; why it gets nothing, or None."""
        state, have = self._desk.state, request.headers.get(headers.HAVE, "")
        await run_in_threadpool(state.offer_again, node, frozenset(have.split(",")))
        if not await state.mail.wait(node, wait_s(request.headers[headers.WAIT])):
            return JSONResponse({"error": "a newer request took this one's place"}, 409)
        if not await run_in_threadpool(self._may_still_speak, request):
            return JSONResponse({"error": "no longer a member"}, 401)
        return None

    def _may_still_speak(self, request: Request) -> bool:
        """It was authenticated before it waited; it may have been banned since."""
        pem = base64.b64decode(request.headers[FLEET_HTTP_PUBLIC_KEY_HEADER])
        return self._desk.state.name_of(pem) is not None


def run_of(call: Any) -> int | None:
    """The run a call is about, None if it is about none."""
    if isinstance(call, PushMessagesRequest):
        return call.messages_list[0].metadata.run_id if call.messages_list else 0
    return call.run_id if hasattr(call, "run_id") else None


def wait_s(header: str) -> float:
    """How long a pull may be held until there is something to deliver, in seconds."""
    return min(float(header), MAX_WAIT_S) if header.isdigit() else 0.0


def may_push(call: PushMessagesRequest, max_objects: int) -> bool:
    """Whether a push holds one reply, of the node that sends it, of bounded size."""
    if len(call.messages_list) != 1 or len(call.message_object_trees) != 1:
        return False
    metadata, tree = call.messages_list[0].metadata, call.message_object_trees[0]
    if metadata.src_node_id != call.node.node_id or metadata.message_id != tree.object_id:
        return False
    return all(count < max_objects for count, _ in enumerate(ids_in(tree)))


def make_app(desk: PortServices) -> RequestLimits:
    """The whole ASGI application."""
    middleware = [
        Middleware(BaseHTTPMiddleware, dispatch=http_error_translator),
        Middleware(ProtobufTranslationMiddleware),
        Middleware(NodeAuthMiddleware),
        Middleware(NodeRules, desk=desk),
    ]
    app = FastAPI(middleware=middleware, openapi_url=None, docs_url=None, redoc_url=None)
    app.state.linkstate_factory = desk.state
    app.state.enable_supernode_auth = True
    app.include_router(fleet_router)
    _add_doors(app, desk)
    return RequestLimits(BodyBuffer(app, desk.state.folder), desk.caps, time.monotonic)


def _add_doors(app: FastAPI, desk: PortServices) -> None:
    """Our own paths. Bodies and answers are wire messages, refusals JSON with one line."""

    @app.get("/community")
    def community() -> Response:
        return _wire(desk.info(desk.now()))

    @app.post("/enroll")
    async def enroll(request: Request) -> Response:
        body = await request.body()
        return await _answered(lambda: desk.registrar.enrol(body, desk.now()))

    @app.post("/leave")
    async def leave(request: Request) -> Response:
        def left() -> None:
            desk.registrar.leave(_asker(request, desk), desk.now())

        return await _answered(left)

    @app.get("/roster")
    async def roster(request: Request, after: int = 0) -> Response:
        def page() -> object:
            _asker(request, desk)
            return desk.registrar.page(max(0, after))

        return await _answered(page)

    @app.get("/receipts")
    async def receipts(request: Request, after: int = 0) -> Response:
        def own() -> object:
            asker = _asker(request, desk)
            found = desk.registrar.store.receipts(asker, max(0, after), PAGE)
            return Receipts(tuple(found))

        return await _answered(own)

    @app.get("/versions")
    async def versions(request: Request, after: int = 0) -> Response:
        def listed() -> object:
            _approved(request, desk)
            records = desk.registry.store.versions(max(0, after), lineage.PAGE)
            return lineage.Versions(tuple(records))

        return await _answered(listed)

    @app.get("/adapter/{digest}")
    async def adapter(request: Request, digest: str) -> Response:
        def found() -> Path:
            _approved(request, desk)
            path = desk.registry.path(bytes.fromhex(digest))
            if not path.is_file():
                raise UsageError("no such adapter")
            return path

        return await _answered(found)


async def _answered(work: Callable[[], object]) -> Response:
    """What `work` returns as a response, its refusal as one line of JSON."""
    try:
        result = await run_in_threadpool(work)
    except Refused as problem:
        return JSONResponse({"refused": str(problem)}, 403)
    except RemoteProtocolError as problem:
        log.warning("refused: %s", problem)
        return JSONResponse({"error": problem.reason}, 400)
    except UsageError as problem:
        return JSONResponse({"error": str(problem)}, 404)
    except NomoatError as problem:
        log.error("%s", problem)
        return JSONResponse({"error": "the coordinator cannot do that now"}, 503)
    if isinstance(result, Path):
        return FileResponse(result, media_type=WIRE)
    return Response(status_code=204) if result is None else _wire(result)


def _asker(request: Request, desk: PortServices) -> bytes:
    """The proven identity of whoever asks; it must have enrolled."""
    query = f"?{request.url.query}" if request.url.query else ""
    target = f"{request.method} {request.url.path}{query}"
    proof = request.headers.get(PROOF_HEADER, "")
    return check_proof(proof, desk.registrar.key.public, target, desk.now())


def _approved(request: Request, desk: PortServices) -> None:
    member = desk.registrar.roster().named(_asker(request, desk))
    if member is None or member.standing is not Standing.APPROVED:
        raise Refused("only approved volunteers may download")


def _wire(message: object) -> Response:
    return Response(wire.encode(message).head, media_type=WIRE)


@dataclass(frozen=True)
class ListenOptions:
    """Where to listen, and with which certificate. port 0 picks a free one."""

    host: str
    port: int
    certificate: Path
    key: Path


@contextmanager
def serving(app: Callable[..., Awaitable[None]], listening: ListenOptions) -> Iterator[int]:
    """Serve `app` over TLS in a thread while the block runs; yields the port.

    NomoatError if the port is taken or the certificate cannot be read.
    """
    bound = bind(listening.host, listening.port)
    port = int(bound.getsockname()[1])
    try:
        config = uvicorn.Config(
            app,
            ssl_certfile=str(listening.certificate),
            ssl_keyfile=str(listening.key),
            log_level="critical",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            lifespan="off",
            ws="none",
            timeout_keep_alive=75,
            limit_concurrency=2000,
            timeout_graceful_shutdown=2,
        )
        config.load()
    except (OSError, ssl.SSLError) as problem:
        bound.close()
        raise NomoatError(f"certificate {listening.certificate}: {problem}") from None
    server = uvicorn.Server(config)
    thread = threading.Thread(
        target=lambda: asyncio.run(_serve(server, bound)), name="fleet", daemon=True
    )
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.005)
        yield port
    finally:
        server.should_exit = True
        thread.join(timeout=10)
        bound.close()


async def _serve(server: uvicorn.Server, bound: socket.socket) -> None:
    await server.serve([bound])
    for connection in list(server.server_state.connections):
        # A peer in the middle of a request would wait for the answer of a server that is gone.
        connection.transport.abort()
    await asyncio.sleep(0)


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; NomoatError in one line if there is none to be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as problem:
        listener.close()
        raise NomoatError(
            f"cannot listen on {host}:{port}: {problem.strerror}; choose another --port"
        ) from None
    return listener


assert fleet_router.prefix + "/" == FLEET
