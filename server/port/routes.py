"""Our own paths: enrolment, the roster, receipts, versions, adapters (docs/protocol.md §5, §6).

Bodies and answers are wire messages, refusals JSON with one line.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from time import monotonic

from fastapi import FastAPI, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse, JSONResponse

from nomoat.aggregation.errors import NomoatError, Refused, RemoteProtocolError, UsageError
from nomoat.aggregation.protocol import lineage, wire
from nomoat.aggregation.protocol.enrolment import PROOF_HEADER, ClocksDiffer, Standing, check_proof
from nomoat.aggregation.protocol.history.appeal import Appeal
from nomoat.aggregation.protocol.receipts import PAGE, Receipts
from nomoat.server.conduct.cases import Cases
from nomoat.server.engines.engine import ConnectionLost, DatabaseAway
from nomoat.server.engines.turns import hurried
from nomoat.server.erasure import erase
from nomoat.server.port.services import Asking, PortServices
from nomoat.server.rounds.records import nobodys_name

log = logging.getLogger(__name__)

WIRE = "application/octet-stream"
AWAY = "the community's records cannot be reached now; try again in some seconds"
AGAIN_S = 5
MAX_NUMBER_DIGITS = 15


def add_routes(app: FastAPI, services: PortServices) -> None:
    """Serve our own paths beside Flower's."""
    _add_membership(app, services)
    _add_presence(app, services)
    _add_leaving(app, services)
    _add_receipts(app, services)
    _add_cases(app, services)
    _add_downloads(app, services)


def _add_membership(app: FastAPI, services: PortServices) -> None:
    """Paths for whoever joins or belongs."""

    @app.get("/community")
    def community() -> Response:
        return as_wire(services.info(services.now()))

    @app.get("/terms")
    async def terms() -> Response:
        def signed() -> object:
            if services.work is None:
                raise UsageError("this coordinator says nothing of the work it asks for")
            return services.work

        return await answered(signed)

    @app.get("/privacy")
    async def privacy() -> Response:
        def signed() -> object:
            if services.privacy is None:
                raise UsageError("this coordinator says nothing of audits and noise")
            return services.privacy

        return await answered(signed)

    @app.post("/enroll")
    async def enroll(request: Request) -> Response:
        body, proof = await request.body(), request.headers.get(PROOF_HEADER, "")
        return await answered(lambda: services.registrar.enrol(body, services.now(), proof))

    @app.get("/roster")
    async def roster(request: Request) -> Response:
        def page() -> object:
            _check_member(request, services)
            return services.registrar.page(number_after(request))

        return await answered(page)


def _add_presence(app: FastAPI, services: PortServices) -> None:
    """Paths for members who wait: keys and terms that hold, what they are asked to agree to."""

    @app.get("/presence")
    async def presence(request: Request) -> Response:
        def told() -> object:
            _check_approved(request, services)
            found = None if services.asking is None else services.asking.presence()
            if found is None:
                raise UsageError("no round is waited for")
            return found

        return await answered(told)

    @app.get("/keys")
    async def keys() -> Response:
        return await answered(services.registrar.keys.message)

    @app.get("/edition")
    async def edition() -> Response:
        return await answered(lambda: _asking(services).edition)

    @app.get("/addresses")
    async def addresses() -> Response:
        return await answered(lambda: _asking(services).addresses)

    @app.post("/agree")
    async def agree(request: Request) -> Response:
        def agreed() -> None:
            member = services.registrar.known().named(_asker(request, services))
            if member is None:
                raise Refused("only members agree to terms")
            _asking(services).consents.agree(member.binding.node_key, number_after(request))

        return await answered(agreed)


def _add_leaving(app: FastAPI, services: PortServices) -> None:
    """Paths for whoever leaves, and may have erased what can be."""

    @app.post("/leave")
    async def leave(request: Request) -> Response:
        def left() -> None:
            services.registrar.leave(_asker(request, services), services.now())

        return await answered(left)

    @app.post("/erase")
    async def erased(request: Request) -> Response:
        def gone() -> None:
            erase(services.registrar, _asker(request, services), nobodys_name(), services.now())

        return await answered(gone)


def _add_receipts(app: FastAPI, services: PortServices) -> None:
    """Paths for members who fetch their receipts, or bring back those the coordinator has lost."""

    @app.get("/receipts")
    async def receipts(request: Request) -> Response:
        def own() -> object:
            asker = _asker(request, services)
            found = services.registrar.database.receipts(asker, number_after(request), PAGE)
            return Receipts(tuple(found))

        return await answered(own)

    @app.post("/receipts")
    async def returned(request: Request) -> Response:
        body = await request.body()

        def take() -> None:
            _check_approved(request, services)
            given = wire.decode(wire.Packet(body), Receipts, "peer").receipts
            services.registrar.take_back(given, _asker(request, services))

        return await answered(take)


def _add_cases(app: FastAPI, services: PortServices) -> None:
    """Paths for members who read what one of them is held for, and for that one's answer."""

    @app.get("/evidence/{digest}")
    async def evidence(request: Request, digest: str) -> Response:
        def found() -> Response:
            _check_member(request, services)
            data = Cases(services.registrar.database).get(bytes.fromhex(digest))
            if data is None:
                raise UsageError("no such evidence")
            return Response(data, media_type=WIRE)

        return await answered(found)

    @app.post("/appeal")
    async def appeal(request: Request) -> Response:
        body = await request.body()

        def hear() -> None:
            said = wire.decode(wire.Packet(body), Appeal, "peer")
            asker, registrar = _asker(request, services), services.registrar
            Cases(registrar.database).hear(registrar, asker, said, services.now())

        return await answered(hear)


def _add_downloads(app: FastAPI, services: PortServices) -> None:
    """Paths for members who fetch the versions of the adapter, and what is signed about them."""

    @app.get("/restored")
    async def restored(request: Request) -> Response:
        def stated() -> object:
            _check_member(request, services)
            return services.restored()

        return await answered(stated)

    @app.get("/versions")
    async def versions(request: Request) -> Response:
        def listed() -> object:
            _check_approved(request, services)
            records = services.versions.database.versions(number_after(request), lineage.PAGE)
            return lineage.Versions(tuple(records))

        return await answered(listed)

    @app.get("/lineage")
    async def standing(request: Request) -> Response:
        def page() -> object:
            _check_approved(request, services)
            return services.versions.lineage(number_after(request))

        return await answered(page)

    @app.get("/adapter/{digest}")
    async def adapter(request: Request, digest: str) -> Response:
        def found() -> Path:
            _check_approved(request, services)
            path = services.versions.path(bytes.fromhex(digest))
            if not path.is_file():
                raise UsageError("no such adapter")
            return path

        return await answered(found)


async def answered(work: Callable[[], object]) -> Response:
    """The result of `work` as a response, its refusal as one line of JSON."""

    def hurrying() -> object:
        with hurried():
            return work()

    try:
        result = await run_in_threadpool(hurrying)
    except Refused as problem:
        return JSONResponse({"refused": str(problem)}, 403)
    except RemoteProtocolError as problem:
        log.warning("refused: %s", problem)
        return JSONResponse({"error": problem.reason}, 400)
    except UsageError as problem:
        return JSONResponse({"error": str(problem)}, 404)
    except (ConnectionLost, DatabaseAway) as problem:
        log.info("%s", problem)
        return JSONResponse({"error": AWAY}, 503, {"retry-after": str(AGAIN_S)})
    except NomoatError as problem:
        log.error("%s", problem)
        return JSONResponse({"error": "the coordinator cannot do that now"}, 503)
    return _as_response(result)


def _as_response(result: object) -> Response:
    if isinstance(result, Response):
        return result
    if isinstance(result, Path):
        return FileResponse(result, media_type=WIRE)
    return Response(status_code=204) if result is None else as_wire(result)


def _asking(services: PortServices) -> Asking:
    if services.asking is None:
        raise UsageError("this coordinator numbers no terms")
    return services.asking


def proven_name(request: Request, services: PortServices) -> str | None:
    """The name of the member that a request for one of our paths proves to come from."""
    if PROOF_HEADER not in request.headers or request.url.path == "/enroll":
        return None
    try:
        member = services.registrar.known().named(_asker(request, services))
    except RemoteProtocolError:
        return None
    return None if member is None else member.binding.name


def _asker(request: Request, services: PortServices) -> bytes:
    """The proven identity of whoever asks; it must have enrolled."""
    query = f"?{request.url.query}" if request.url.query else ""
    target = f"{request.method} {request.url.path}{query}"
    proof = request.headers.get(PROOF_HEADER, "")
    try:
        return check_proof(proof, services.registrar.keys.founding, target, services.now())
    except ClocksDiffer as problem:
        _doubt(problem, services)
        raise


def _doubt(problem: ClocksDiffer, services: PortServices) -> None:
    """Tell the operator, if it is a member's proof, and others differ by the same."""
    member = services.registrar.roster().named(problem.identity)
    name = None if member is None else member.binding.name
    if name is not None and (line := services.doubts.note(name, problem.ahead_s, monotonic())):
        log.warning("%s", line)


def number_after(request: Request) -> int:
    """Return the number after which a list is asked for, 0 by default.

    RemoteProtocolError unless it is one that a list can have.
    """
    text = request.query_params.get("after", "0")
    if not text.isascii() or not text.isdigit() or len(text) > MAX_NUMBER_DIGITS:
        raise RemoteProtocolError("peer", "§5.3", "`after` must be a number")
    return int(text)


def _check_member(request: Request, services: PortServices) -> None:
    if services.registrar.known().named(_asker(request, services)) is None:
        raise Refused("only members may read the roster")


def _check_approved(request: Request, services: PortServices) -> None:
    member = services.registrar.known().named(_asker(request, services))
    if member is None or member.standing is not Standing.APPROVED:
        raise Refused("only approved volunteers may download")


def as_wire(message: object) -> Response:
    """Answer with a message."""
    return Response(wire.encode(message).head, media_type=WIRE)
