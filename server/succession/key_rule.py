"""Volunteers of a release that follows no change of a community's key, told so in one line."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.responses import JSONResponse

from nomoat.flower.headers import FOLLOWS_KEYS
from nomoat.server.community.members import Registrar
from nomoat.server.port.request_limits import App, Receive, Scope, Send

TOO_OLD = (
    "this community has changed its key, which this release of nomoat cannot follow; upgrade "
    "nomoat on this machine and start it again: nothing else is to be done"
)


class KeyRule:
    """Passes on what comes from volunteers that can follow; everything, before a first change."""

    def __init__(self, app: App, registrar: Registrar) -> None:
        self._app = app
        self._registrar = registrar

    def refusal(self, scope: Scope) -> JSONResponse | None:
        """The answer to a request that is refused, None to one that is passed on."""
        changed = scope["type"] == "http" and bool(self._registrar.keys.changes)
        if not changed or FOLLOWS_KEYS in Headers(scope=scope):
            return None
        return JSONResponse({"refused": TOO_OLD}, 403)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        await (self.refusal(scope) or self._app)(scope, receive, send)
