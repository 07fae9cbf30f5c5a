"""A porter's end of its link: what has passed the limits goes to the round process and back.

It is the application behind RequestLimits and BodyBuffer, and knows nothing of calls but their
heads. A request that the round process holds open waits here, as one entry and a timer.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from starlette.responses import FileResponse

from nomoat.server.fleet.node_signature import PROVEN_KEY
from nomoat.server.port.request_limits import Receive, Scope, Send
from nomoat.server.porters.frames import (
    Answered,
    Asked,
    BodyPiece,
    BrokenLink,
    Due,
    Frame,
    Frames,
    HeldOpen,
    Listening,
    MemberChanges,
    NewCertificate,
    encode,
)
from nomoat.server.porters.member_book import MemberBook
from nomoat.server.rounds.watching import Traffic

GONE = 0  # the exit status of a porter whose round process has ended


@dataclass
class RoundLink(asyncio.Protocol):
    """Passes requests on. carried: bytes so far; renew: the certificate's files are new ones."""

    book: MemberBook
    carried: Callable[[], Traffic]
    renew: Callable[[], None]
    ended: Callable[[], None] = lambda: os._exit(GONE)
    _frames: Frames = field(default_factory=Frames)
    _answers: dict[int, asyncio.Queue[Answered | BodyPiece]] = field(default_factory=dict)
    _timers: dict[int, asyncio.TimerHandle] = field(default_factory=dict)
    _number: int = 0
    _told: Traffic = field(default_factory=Traffic)
    _room: asyncio.Event = field(default_factory=asyncio.Event)

    async def open(self, link: socket.socket) -> None:
        """Begin, in the running loop."""
        self._room.set()
        self._loop = asyncio.get_running_loop()
        link.setblocking(False)
        await self._loop.create_connection(lambda: self, sock=link)

    def ready(self) -> None:
        """Say that volunteers are served; from any thread."""
        self._loop.call_soon_threadsafe(self._say, Listening())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The link is open."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """The round process has ended, and with it whatever was under way."""
        self.ended()

    def pause_writing(self) -> None:
        """The round process is behind."""
        self._room.clear()

    def resume_writing(self) -> None:
        """It has caught up."""
        self._room.set()

    def data_received(self, data: bytes) -> None:
        """Take what the round process says."""
        try:
            for frame in self._frames.feed(data):
                self._take(frame)
        except BrokenLink:
            self._transport.abort()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and its answer back."""
        message = await receive()  # RequestLimits, BodyBuffer: the whole of it
        self._number += 1
        number, answers = self._number, asyncio.Queue[Answered | BodyPiece]()
        self._answers[number] = answers
        try:
            await self._room.wait()
            self._say(self._asked(number, scope, message.get("body", b"")))
            await _pass_on(answers, scope, receive, send)
        finally:
            del self._answers[number]
            if (timer := self._timers.pop(number, None)) is not None:
                timer.cancel()

    def _asked(self, number: int, scope: Scope, body: bytes) -> Asked:
        now, told = self.carried(), self._told
        self._told = now
        return Asked(
            number,
            scope["method"],
            scope["path"],
            bytes(scope.get("query_string", b"")),
            tuple(scope["headers"]),
            (scope.get("client") or ("?", 0))[0],
            scope.get(PROVEN_KEY, b""),
            body,
            now.up - told.up,
            now.down - told.down,
        )

    def _say(self, frame: Frame) -> None:
        self._transport.write(encode(frame))

    def _take(self, frame: Frame) -> None:
        if isinstance(frame, Answered | BodyPiece):
            if (answers := self._answers.get(frame.number)) is not None:
                answers.put_nowait(frame)
        elif isinstance(frame, HeldOpen):
            due = self._loop.call_later(frame.seconds, self._say, Due(frame.number))
            self._timers[frame.number] = due
        elif isinstance(frame, MemberChanges):
            self.book.take(frame)
        elif isinstance(frame, NewCertificate):
            self.renew()
        else:
            raise BrokenLink(type(frame).__name__)


async def _pass_on(
    answers: asyncio.Queue[Answered | BodyPiece], scope: Scope, receive: Receive, send: Send
) -> None:
    begun = await answers.get()
    if not isinstance(begun, Answered):
        raise BrokenLink("an answer without a beginning")
    if begun.file:
        heads = {name.decode("latin-1"): value.decode("latin-1") for name, value in begun.heads}
        await FileResponse(Path(begun.file), begun.status, heads)(scope, receive, send)
        return
    start = {"type": "http.response.start", "status": begun.status, "headers": list(begun.heads)}
    await send(start)
    part: Answered | BodyPiece = begun
    while True:
        await send({"type": "http.response.body", "body": part.body, "more_body": part.more})
        if not part.more:
            return
        part = await answers.get()


def renewing(
    context: Callable[[], ssl.SSLContext | None], certificate: Path, key: Path
) -> Callable[[], None]:
    """Have new connections shown the certificate that the files hold now."""

    def renew() -> None:
        if (shown := context()) is not None:
            shown.load_cert_chain(certificate, key)

    return renew
