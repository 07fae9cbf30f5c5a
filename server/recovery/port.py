"""The one thing that a restored community's port is open for: its members and what they hold.

    POST /recovery                          Holding → WantedPieces
    POST /recovery/lineage                  LineagePage
    POST /recovery/roster                   Page
    POST /recovery/adapter/DIGEST?after=N   the next bytes of a file

Everything else is answered with 503, which volunteers of every release wait out.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from fastapi import FastAPI, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse

from nomoat.aggregation.errors import RemoteProtocolError
from nomoat.aggregation.protocol.enrolment import PROOF_HEADER, CommunityInfo, check_proof
from nomoat.aggregation.protocol.history.key_changes import CommunityKeys
from nomoat.server.port.request_limits import Caps, RequestLimits, Scope
from nomoat.server.port.routes import answered, number_after
from nomoat.server.recovery.gathering import Gathering

BUSY = "the community is brought back from a backup; its members are asked what they still hold"


def make_app(
    gathering: Gathering,
    keys: CommunityKeys,
    info: Callable[[int], CommunityInfo],
    caps: Caps | None = None,
) -> RequestLimits:
    """Return the application. info: the community's signed description at a unix time."""
    app = FastAPI(openapi_url=None)
    asker = partial(_asker, keys.founding)

    @app.get("/community")
    async def community() -> Response:
        return await answered(lambda: info(int(time.time())))

    @app.get("/keys")
    async def every_key() -> Response:
        return await answered(keys.message)

    _add_recovery(app, gathering, asker)

    @app.api_route("/{path:path}", methods=["GET", "POST"])
    async def busy(path: str) -> Response:
        del path
        return JSONResponse({"error": BUSY}, 503)

    def named(request: Request) -> str | None:
        try:
            return gathering.member(asker(request))
        except RemoteProtocolError:
            return None

    async def member(scope: Scope) -> str | None:
        request = Request(scope)
        if not request.url.path.startswith("/recovery") or PROOF_HEADER not in request.headers:
            return None
        return await run_in_threadpool(named, request)

    return RequestLimits(app, caps or Caps(), time.monotonic, member)


def _add_recovery(app: FastAPI, gathering: Gathering, asker: Callable[[Request], bytes]) -> None:
    @app.post("/recovery")
    async def holding(request: Request) -> Response:
        body = await request.body()
        return await answered(lambda: gathering.hear(body, asker(request), time.monotonic()))

    @app.post("/recovery/lineage")
    async def records(request: Request) -> Response:
        body, now = await request.body(), int(time.time())
        return await answered(lambda: gathering.take_lineage(body, asker(request), now))

    @app.post("/recovery/roster")
    async def entries(request: Request) -> Response:
        body, now = await request.body(), int(time.time())
        return await answered(lambda: gathering.take_roster(body, asker(request), now))

    @app.post("/recovery/adapter/{digest}")
    async def part(request: Request, digest: str) -> Response:
        body = await request.body()

        def take() -> None:
            after, now = number_after(request), time.monotonic()
            gathering.take_adapter(bytes.fromhex(digest), after, body, asker(request), now)

        return await answered(take)


def _asker(public: bytes, request: Request) -> bytes:
    """Return the proven identity of whoever asks; RemoteProtocolError without a proof."""
    query = f"?{request.url.query}" if request.url.query else ""
    target = f"{request.method} {request.url.path}{query}"
    proof = request.headers.get(PROOF_HEADER, "")
    return check_proof(proof, public, target, int(time.time()))
