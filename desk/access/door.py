"""The door of a page: what a request has to pass before anything of ours sees it.

    the host it names     this machine's, or one that was named: no stranger's name leads here
    its pace              a few a second from one address, fewer for keys that do not fit
    its key or session    else a page that says where to get a link
    its origin            a form comes from a page of ours, and carries its session's token

Every answer carries headers under which a browser loads nothing from elsewhere, runs no script that
is not a file of ours, and is framed by nobody.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import Final
from urllib.parse import parse_qs, parse_qsl

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nomoat.aggregation.errors import UsageError
from nomoat.desk.access.sessions import BrowserSession, Sessions
from nomoat.server.port.rate_limit import Rate, RateLimit

MOST_FORM_BYTES: Final = 64 << 10
OPEN_PATHS: Final = frozenset({"/static/desk.css", "/static/desk.js", "/health"})
HEADERS: Final = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",  # without any, a form of ours would have no origin
    "x-dns-prefetch-control": "off",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-store",
}


@dataclass(frozen=True)
class DoorRules:
    """A door's limits. hosts: names in a Host header, without port. stranger: of wrong keys."""

    hosts: frozenset[str] = frozenset({"127.0.0.1", "localhost", "[::1]"})
    secure: bool = False  # over TLS
    address: Rate = field(default=Rate(30, 300))
    stranger: Rate = field(default=Rate(0.2, 10))


class Door:
    """ASGI middleware: nobody comes in without a session. refused: the page said to a stranger."""

    def __init__(
        self,
        app: ASGIApp,
        sessions: Sessions,
        rules: DoorRules,
        refused: Callable[[str], str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app, self._sessions, self._rules, self._refused = app, sessions, rules, refused
        self._clock = clock
        self._addresses = RateLimit(rules.address)
        self._strangers = RateLimit(rules.stranger)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it here."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        answer = self._answer(Request(scope), scope)
        guarded = self._with_headers(send)
        await (self._app if answer is None else answer)(scope, receive, guarded)

    def _answer(self, request: Request, scope: Scope) -> Response | None:
        """Return the answer to a request that may not pass; None if it may."""
        address = request.client.host if request.client else "?"
        if _host(request) not in self._rules.hosts:
            return Response("this address is not one of ours\n", 421)
        if not self._addresses.allow(address, self._clock()):
            return Response("too many requests; wait a few seconds\n", 429)
        if request.url.path in OPEN_PATHS:
            return None
        return self._keyed(request, scope, address)

    def _keyed(self, request: Request, scope: Scope, address: str) -> Response | None:
        """Return the answer to whoever has neither key nor session, or has shown a key."""
        key = _first(parse_qs(request.url.query).get("key"))
        if key is not None and request.method == "GET":
            return self._opened(request, key, address)
        session = self._sessions.find(_cookie(request, self.cookie(request)))
        if session is None:
            return self._stranger("This page opens with a link that holds a one-time key.")
        if request.method not in ("GET", "HEAD") and not _same_origin(request):
            return self._stranger(
                "This order came from another page, and was not carried out.", 403
            )
        scope["session"] = session
        return None

    def cookie(self, request: Request) -> str:
        """Return the cookie's name: browsers share cookies among the ports of one host."""
        return f"nomoat_{request.url.port or (443 if self._rules.secure else 80)}"

    def _opened(self, request: Request, key: str, address: str) -> Response:
        if not self._strangers.has_left(address, self._clock()):
            return Response("too many keys that do not fit; wait a minute\n", 429)
        name = self._sessions.open(key)
        if name is None:
            self._strangers.allow(address, self._clock())
            if self._sessions.find(_cookie(request, self.cookie(request))) is not None:
                return RedirectResponse(request.url.path, 303)  # a link opened twice
            return self._stranger("This link was used already, or is too old.")
        answer = RedirectResponse(request.url.path, 303)
        answer.set_cookie(
            self.cookie(request),
            name,
            httponly=True,
            samesite="lax",
            secure=self._rules.secure,
        )
        return answer

    def _stranger(self, why: str, status: int = 401) -> Response:
        return Response(self._refused(why), status, media_type="text/html")

    def _with_headers(self, send: Send) -> Send:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        return guarded


async def checked_form(request: Request) -> dict[str, str]:
    """Return the fields of a form of ours; UsageError if it is not from this browser's page."""
    session: BrowserSession = request.scope["session"]
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MOST_FORM_BYTES:
            raise UsageError("the form is too long")
    fields = dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
    given = fields.pop("form_token", "")
    if not hmac.compare_digest(given.encode(), session.form_token.encode()):
        raise UsageError("the page was too old; nothing was changed, try once more")
    return fields


def _host(request: Request) -> str:
    host = request.headers.get("host", "")
    return (host.rsplit(":", 1)[0] if not host.endswith("]") else host).lower()


def _same_origin(request: Request) -> bool:
    """True unless the browser says that another page sent this."""
    origin = request.headers.get("origin")
    if origin is not None:
        return origin.partition("://")[2] == request.headers.get("host")
    return request.headers.get("sec-fetch-site", "same-origin") in ("same-origin", "none")


def _cookie(request: Request, name: str) -> str:
    try:
        found = SimpleCookie(request.headers.get("cookie", "")).get(name)
    except CookieError:
        return ""
    return found.value if found else ""


def _first(values: list[str] | None) -> str | None:
    return values[0] if values else None
