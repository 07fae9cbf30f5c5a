"""The round process's end of one porter's link: calls that were let through are judged and made.

In one loop for all porters, without threads in between for what is small: nothing waits there. A
porter has checked a request's head (limits, and the signature under a node key that may speak);
whose call it is, and what that one may do now, is judged here again each time, as at a port of
this process's own. So a porter that has not heard of a ban yet lets nobody in.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from fastapi import Request
from starlette.responses import Response

from nomoat.flower import headers
from nomoat.server.fleet import flower_server
from nomoat.server.fleet.link_state import FleetState
from nomoat.server.fleet.node_signature import PROVEN_KEY
from nomoat.server.port.fleet_calls import may_be_held, refused, wait_s
from nomoat.server.port.http_app import Inside, proven_member
from nomoat.server.port.request_limits import FLEET, SMALL_BYTES, Message, Scope
from nomoat.server.porters.frames import (
    PIECE_BYTES,
    Answered,
    Asked,
    BodyPiece,
    BrokenLink,
    Due,
    Frame,
    Frames,
    HeldOpen,
    Listening,
    encode,
)
from nomoat.server.rounds.watching import Traffic

log = logging.getLogger(__name__)
PATH_SEND = "http.response.pathsend"  # an ASGI extension: the server sends the file


@dataclass(frozen=True)
class RoundSide:
    """The parts that all links share. inside: as at a port of this process's own.

    changed: called before an answer leaves, to tell porters who may speak.
    """

    inside: Inside
    state: FleetState
    changed: Callable[[], None] = lambda: None
    carried: Traffic = field(default_factory=Traffic)


@dataclass(frozen=True)
class PortersPull:
    """A pull that a porter holds open."""

    link: PorterLink
    request: Request
    call: Any
    number: int

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop of all links."""
        return self.link.loop

    def wake(self) -> None:
        """Answer it."""
        self.link.end(self)


class PorterLink(asyncio.Protocol):
    """One porter. lost: called when its link has ended; listening: set once it serves."""

    def __init__(self, side: RoundSide, lost: Callable[[], None]) -> None:
        self.loop = asyncio.get_running_loop()
        self.listening = asyncio.Event()
        self._side = side
        self._lost = lost
        self._frames = Frames()
        self._pulls: dict[int, PortersPull] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The porter's process has been started."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """It has ended; its volunteers come back to another, who ask anew."""
        self._transport = None
        for pull in self._pulls.values():
            self._side.state.pulls.over(flower_server.node_of(pull.call), pull)
        self._pulls.clear()
        self._lost()

    def data_received(self, data: bytes) -> None:
        """Take what the porter says."""
        try:
            for frame in self._frames.feed(data):
                self._take(frame)
        except BrokenLink as problem:
            log.error("a port process said what is no frame: %s", problem)
            self.close()

    def say(self, frame: Frame) -> None:
        """Send a frame, unless the porter has ended."""
        if self._transport is not None:
            self._transport.write(encode(frame))

    def answer(self, answered: Answered) -> None:
        """Send an answer, and before it what it may have changed of who may speak."""
        self._side.changed()
        self.say(answered)

    def close(self) -> None:
        """End the porter, which ends with its link."""
        if self._transport is not None:
            self._transport.abort()

    def end(self, pull: PortersPull) -> None:
        """Answer a pull that has waited, the first time that there is a reason to."""
        if self._pulls.pop(pull.number, None) is None:
            return
        newest = self._side.state.pulls.over(flower_server.node_of(pull.call), pull)
        made = lambda: self._side.inside.calls.end(pull.request, pull.call, newest=newest)  # noqa: E731
        self._answer(pull.number, pull.request, made)

    def _take(self, frame: Frame) -> None:
        if isinstance(frame, Due):
            if (pull := self._pulls.get(frame.number)) is not None:
                self.end(pull)
        elif isinstance(frame, Asked):
            self._side.carried.up += frame.up
            self._side.carried.down += frame.down
            self._ask(frame)
        elif isinstance(frame, Listening):
            self.listening.set()
        else:
            raise BrokenLink(type(frame).__name__)

    def _ask(self, asked: Asked) -> None:
        scope = scope_of(asked)
        if not asked.path.startswith(FLEET) or len(asked.body) >= SMALL_BYTES:
            task = self.loop.create_task(self._run(asked, scope))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return
        request = Request(scope)
        self._answer(asked.number, request, lambda: self._made(asked, request))

    def _made(self, asked: Asked, request: Request) -> Response | None:
        """Make a small fleet call; None if it waits now."""
        if (refusal := self._side.inside.refusal(request.scope)) is not None:
            return refusal
        if not asked.key:  # a porter hears of who has just joined a little later than we do
            proven_member(request.scope, self._side.state)
        call = flower_server.parsed(asked.path, request, asked.body)
        if not may_be_held(request, call):
            return self._side.inside.calls.at_once(request, call)
        pull = PortersPull(self, request, call, asked.number)
        self._pulls[asked.number] = pull
        try:
            self._side.inside.calls.begin(request, call, pull)
        except BaseException:
            del self._pulls[asked.number]
            raise
        self.say(HeldOpen(asked.number, wait_s(request.headers[headers.WAIT])))
        return None

    def _answer(self, number: int, request: Request, make: Callable[[], Response | None]) -> None:
        try:
            response = make()
        except Exception as problem:  # noqa: BLE001 - hostile bytes; flwr raises whatever it likes
            response = refused(request.url.path, problem)
        if response is not None:
            heads = tuple(response.raw_headers)
            self.answer(Answered(number, response.status_code, heads, bytes(response.body)))

    async def _run(self, asked: Asked, scope: Scope) -> None:
        """Have the application answer a request in its own time."""
        given = False

        async def receive() -> Message:
            nonlocal given
            if given:
                await asyncio.Event().wait()  # whoever asked may have gone: it is answered anyway
            given = True
            return {"type": "http.request", "body": asked.body, "more_body": False}

        sending = Sending(self, asked.number)
        try:
            await self._side.inside.app(scope, receive, sending.take)
        except Exception as problem:  # noqa: BLE001 - as a server does
            log.warning("%s: no answer (%s)", asked.path, type(problem).__name__)
            sending.fail()


class Sending:
    """An answer of the application on its way to the porter."""

    def __init__(self, link: PorterLink, number: int) -> None:
        self._link = link
        self._number = number
        self._start: Message | None = None
        self._begun = False

    async def take(self, message: Message) -> None:
        """Take one message of the application's."""
        if message["type"] == "http.response.start":
            self._start = message
            return
        if message["type"] == PATH_SEND:
            self._say(b"", file=str(message["path"]), more=False)
            return
        body, more = bytes(message.get("body", b"")), bool(message.get("more_body", False))
        while len(body) > PIECE_BYTES:
            self._say(body[:PIECE_BYTES], more=True)
            body = body[PIECE_BYTES:]
        self._say(body, more=more)

    def fail(self) -> None:
        """Answer that there is no answer; where one was begun, its length tells."""
        if self._begun:
            self._say(b"", more=False)
        else:
            self._link.answer(Answered(self._number, 500, ((b"content-length", b"0"),), b""))

    def _say(self, body: bytes, *, file: str = "", more: bool) -> None:
        if self._begun:
            self._link.say(BodyPiece(self._number, body, more))
            return
        self._begun = True
        assert self._start is not None
        heads = tuple((bytes(name), bytes(value)) for name, value in self._start["headers"])
        self._link.answer(Answered(self._number, self._start["status"], heads, body, file, more))


def scope_of(asked: Asked) -> Scope:
    """A request as ASGI has it."""
    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": asked.method,
        "scheme": "https",
        "path": asked.path,
        "raw_path": asked.path.encode(),
        "root_path": "",
        "query_string": asked.query,
        "headers": list(asked.heads),
        "client": (asked.sender, 0),
        "server": None,
        "extensions": {PATH_SEND: {}},
    }
    if asked.key:
        scope[PROVEN_KEY] = asked.key
    return scope
