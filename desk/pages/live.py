"""Parts of a page that follow what happens: rendered again each second, sent when they changed.

event: part
data: {"id": "now", "html": "…"}
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

LOOK_S: Final = 1.0
SILENCE_S: Final = 15.0  # then a comment, so that a proxy keeps the line
MOST_STREAMS: Final = 30

Parts = Callable[[], Mapping[str, str]]  # id of an element → its HTML


class LiveParts:
    """The streams of one server; no more than MOST_STREAMS at a time."""

    def __init__(self, look_s: float = LOOK_S) -> None:
        self._look_s = look_s
        self._open = 0

    def stream(self, parts: Parts) -> Response:
        """Return a stream of the parts as they change; 503 if too many are open."""
        if self._open >= MOST_STREAMS:
            return Response("too many pages are open\n", 503)
        headers = {"x-accel-buffering": "no"}
        return StreamingResponse(
            self._events(parts), media_type="text/event-stream", headers=headers
        )

    async def _events(self, parts: Parts) -> AsyncIterator[str]:
        self._open += 1
        try:
            before: dict[str, str] = {}
            silent_s = 0.0
            while True:
                found = dict(await run_in_threadpool(parts))
                for name, html in found.items():
                    if before.get(name) != html:
                        said = json.dumps({"id": name, "html": html})
                        yield f"event: part\ndata: {said}\n\n"
                        silent_s = 0.0
                before = found
                if silent_s >= SILENCE_S:
                    yield ": still here\n\n"
                    silent_s = 0.0
                await asyncio.sleep(self._look_s)
                silent_s += self._look_s
        finally:
            self._open -= 1
