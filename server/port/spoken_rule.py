"""A volunteer that shares no version of the protocol is told in one line what to install."""

from __future__ import annotations

import logging
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.responses import JSONResponse

from nomoat.aggregation.protocol.community.spoken import OURS, SpokenVersions, newer_release
from nomoat.flower.headers import SPEAKS
from nomoat.server.port.request_limits import App, Receive, Scope, Send

log = logging.getLogger(__name__)

DESCRIPTION = "/community"  # whoever is newer reads there what this side speaks


class SpokenRule:
    """Passes on what comes from whoever speaks a version in common; notes what each speaks.

    note: is given the scope of each request and the versions that it tells.
    """

    def __init__(
        self,
        app: App,
        note: Callable[[Scope, SpokenVersions], None],
        ours: SpokenVersions = OURS,
    ) -> None:
        self._app = app
        self._note = note
        self._ours = ours
        self._told: set[SpokenVersions] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        await (self.refusal(scope) or self._app)(scope, receive, send)

    def refusal(self, scope: Scope) -> JSONResponse | None:
        """The answer to a request that is refused, None to one that is passed on."""
        if scope["type"] != "http":
            return None
        theirs = SpokenVersions.read(Headers(scope=scope).get(SPEAKS, ""))
        self._note(scope, theirs)
        refused = refusal(theirs, self._ours, scope["path"])
        if refused is not None and theirs not in self._told and len(self._told) < 100:
            self._told.add(theirs)
            log.warning("a volunteer that speaks protocol %s was told: %s", theirs, refused)
        return None if refused is None else JSONResponse({"refused": refused}, 403)


def refusal(theirs: SpokenVersions, ours: SpokenVersions, path: str) -> str | None:
    """Say who must install which release; None where there is a version in common."""
    if theirs.common(ours) is not None:
        return None
    apart = f"this community speaks protocol {ours}, this nomoat {theirs}"
    if theirs.high < ours.low:
        return f"{apart}: install {newer_release(ours)} on this machine and start it again"
    if path == DESCRIPTION:
        return None
    return f"{apart}: its coordinator must install a newer nomoat"
