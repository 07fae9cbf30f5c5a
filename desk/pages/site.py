"""A site: pages to look at and orders to give, over HTTP, behind a door that knows who asks.

Every order is a form that carries its session's token, and ends in a page that says what came of
it. A refusal is a sentence on that page; a fault of ours is logged, and its text stays here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Final

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from nomoat.aggregation.errors import NomoatError
from nomoat.desk.access.door import checked_form
from nomoat.desk.access.sessions import BrowserSession
from nomoat.desk.pages.frame import PageFrame
from nomoat.desk.pages.live import LiveParts
from nomoat.desk.pages.rendering import HERE, render

log = logging.getLogger(__name__)

STATIC: Final = {"desk.css": "text/css", "desk.js": "text/javascript"}

View = Callable[[Request, BrowserSession], str | Response]
Order = Callable[[Mapping[str, str], BrowserSession], str]
Framed = Callable[[str, BrowserSession], PageFrame]


class Site:
    """One site's routes. framed: makes the frame of a page that only says something."""

    def __init__(self, framed: Framed) -> None:
        self.app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
        self._framed = framed
        self._live = LiveParts()
        for name, kind in STATIC.items():
            self._file(name, kind)
        self.app.add_api_route("/health", _health, methods=["GET"])
        self.app.add_exception_handler(404, self._lost)
        self.app.add_exception_handler(Exception, _broken)

    def page(self, path: str, view: View) -> None:
        """Show what `view` returns at `path`: HTML, or a whole answer."""

        async def shown(request: Request) -> Response:
            session: BrowserSession = request.scope["session"]
            try:
                found = await run_in_threadpool(view, request, session)
            except NomoatError as problem:
                return self._said(session, str(problem))
            return found if isinstance(found, Response) else HTMLResponse(found)

        self.app.add_api_route(path, shown, methods=["GET"], response_model=None)

    def order(self, path: str, act: Order) -> None:
        """Have `act` do what a form sent to `path` says; its words, if any, are shown on its page.

        The form's `back` names that page, a path of this site.
        """

        async def done(request: Request) -> Response:
            session: BrowserSession = request.scope["session"]
            back = "/"
            try:
                fields = await checked_form(request)
                back = _within(fields.pop("back", "/"))
                if said := await run_in_threadpool(act, fields, session):
                    session.said.append(said)
            except NomoatError as problem:
                session.said.append(f"Not done: {problem}")
            return RedirectResponse(back, 303)

        self.app.add_api_route(path, done, methods=["POST"], response_model=None)

    def live(
        self, path: str, parts: Callable[[Request, BrowserSession], Mapping[str, str]]
    ) -> None:
        """Stream parts of a page as they change."""

        async def streamed(request: Request) -> Response:
            session: BrowserSession = request.scope["session"]
            return self._live.stream(lambda: parts(request, session))

        self.app.add_api_route(path, streamed, methods=["GET"], response_model=None)

    def _file(self, name: str, kind: str) -> None:
        data = (HERE / name).read_bytes()

        async def file() -> Response:
            return Response(data, media_type=kind)

        self.app.add_api_route(f"/static/{name}", file, methods=["GET"], response_model=None)

    def _said(self, session: BrowserSession, text: str, status: int = 200) -> Response:
        session.said.append(text)
        return HTMLResponse(render("said", page=self._framed("nomoat", session)), status)

    async def _lost(self, request: Request, _problem: Exception) -> Response:
        session = request.scope.get("session")
        if session is None:
            return PlainTextResponse("no such page\n", 404)
        return self._said(session, "There is no such page.", 404)


async def _health() -> Response:
    return PlainTextResponse("ok\n")


async def _broken(_request: Request, problem: Exception) -> Response:
    log.error("a page could not be made", exc_info=problem)
    return PlainTextResponse("nomoat could not make this page; its log says why\n", 500)


def _within(path: str) -> str:
    """A path of this site; its first page for anything else."""
    inside = path.startswith("/") and not path.startswith("//") and "\\" not in path
    return path if inside and path.isprintable() else "/"
