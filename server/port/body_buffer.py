"""Large bodies wait on disk while their peers are slow; a few at a time are worked on in memory.

Between the gate and Flower, which holds several copies of a body while it handles it, and all of an
answer until its peer has taken it. With this a coordinator's memory is a few adapters, however many
volunteers upload or download at once and however slowly.
"""

from __future__ import annotations

import asyncio
import gc
import tempfile
from pathlib import Path
from typing import BinaryIO

from nomoat.server.port.request_limits import (
    FLEET,
    SMALL_BYTES,
    App,
    Message,
    PeerLeft,
    Receive,
    Scope,
    Send,
    content_length,
    replaying,
)

LARGE_BYTES = SMALL_BYTES  # smaller ones are whole when they come here
CHUNK_BYTES = 256 << 10
AT_ONCE = 2
COLLECT_BYTES = 16 << 20  # of bodies, between two looks for those that nobody needs any more


class BodyBuffer:
    """ASGI middleware. folder: on a disk with room for what is under way."""

    def __init__(self, app: App, folder: Path, at_once: int = AT_ONCE) -> None:
        self._app = app
        self._folder = folder
        self._slots = asyncio.Semaphore(at_once)
        self._uncollected = 0  # bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on when all of it is here, its answer when it has been worked out."""
        length = (content_length(scope) or 0) if scope["type"] == "http" else 0
        large = length >= LARGE_BYTES
        if not (large or scope.get("path") == FLEET + "pull-object"):
            await self._app(scope, receive, send)
            return
        with tempfile.TemporaryFile(dir=self._folder) as held:
            if large:
                try:
                    await _take(held, receive)
                except PeerLeft:
                    return
                receive = replaying(lambda: _content(held), receive)
            answer = BufferedAnswer(held)
            async with self._slots:
                await self._app(scope, receive, answer.keep)
                self._collect(length if large else 0)
            await answer.send_on(send)

    def _collect(self, length: int) -> None:
        """Free bodies, which the handlers leave in cycles of references.

        Not after each: looking takes as long as there are objects, tens of milliseconds with many
        volunteers.
        """
        self._uncollected += length
        if self._uncollected >= COLLECT_BYTES:
            self._uncollected = 0
            gc.collect()


class BufferedAnswer:
    """The answer of the application, kept in `held`."""

    def __init__(self, held: BinaryIO) -> None:
        self._held = held
        self._start: Message = {}
        self._empty = False

    async def keep(self, message: Message) -> None:
        """Take one message of the application's."""
        if message["type"] == "http.response.start":
            self._start = message
            return
        if not self._empty:  # the request was in there
            self._held.seek(0)
            self._held.truncate()
            self._empty = True
        self._held.write(message.get("body", b""))

    async def send_on(self, send: Send) -> None:
        """Hand the answer to the peer, as fast as it takes it."""
        await send(self._start)
        size = self._held.tell() if self._empty else 0
        self._held.seek(0)
        while size > 0:
            chunk = self._held.read(min(size, CHUNK_BYTES))
            size -= len(chunk)
            await send({"type": "http.response.body", "body": chunk, "more_body": size > 0})
        if not self._held.tell():
            await send({"type": "http.response.body", "body": b""})


async def _take(held: BinaryIO, receive: Receive) -> None:
    """Lay a request's body aside; PeerLeft if its peer does not finish it."""
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise PeerLeft
        held.write(message.get("body", b""))
        more = message.get("more_body", False)


def _content(held: BinaryIO) -> bytes:
    held.seek(0)
    return held.read()
