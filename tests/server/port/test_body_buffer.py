"""Large bodies pass whole, a few at a time, and slow peers hold up nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from nomoat.server.port.body_buffer import CHUNK_BYTES, LARGE_BYTES, BodyBuffer

PULL = "/v1/fleet/pull-object"
PUSH = "/v1/fleet/push-object"
BODY = bytes(range(256)) * (LARGE_BYTES // 256 + 1)


class Echo:
    """Answers with what it was sent, or with `answer`; notes how many it works on at once."""

    def __init__(self, answer: bytes | None = None) -> None:
        self.answer = answer
        self.inside = self.most = self.pieces = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.inside += 1
        self.most = max(self.most, self.inside)
        body, more = b"", True
        while more:
            message = await receive()
            self.pieces += 1
            body, more = body + message["body"], message["more_body"]
        await asyncio.sleep(0)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x", b"y")]})
        await send(
            {"type": "http.response.body", "body": body if self.answer is None else self.answer}
        )
        self.inside -= 1


class Peer:
    """Sends `body` in pieces and keeps what it is answered; `before` is awaited at each step."""

    def __init__(
        self, body: bytes = b"", before: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        self.left = [body[i : i + 65536] for i in range(0, len(body), 65536)] or [b""]
        self.length = len(body)
        self.before = before
        self.sent: list[Any] = []

    async def receive(self) -> Any:
        if self.before is not None:
            await self.before()
        piece = self.left.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(self.left)}

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    async def ask(self, holding: BodyBuffer, path: str) -> bytes:
        headers = [(b"content-length", str(self.length).encode())]
        scope = {"type": "http", "method": "POST", "path": path, "headers": headers}
        await holding(scope, self.receive, self.send)
        return b"".join(message.get("body", b"") for message in self.sent)


def test_a_large_request_arrives_in_one_piece_and_its_answer_in_small_ones(tmp_path: Path) -> None:
    echo, peer = Echo(), Peer(BODY)
    assert asyncio.run(peer.ask(BodyBuffer(echo, tmp_path), PUSH)) == BODY
    assert echo.pieces == 1
    start, *bodies = peer.sent
    assert (start["status"], start["headers"]) == (200, [(b"x", b"y")])
    assert max(len(message["body"]) for message in bodies) <= CHUNK_BYTES
    assert [message["more_body"] for message in bodies] == [True] * (len(bodies) - 1) + [False]


@pytest.mark.parametrize("answer", [b"", b"short", BODY])
def test_an_answer_is_the_application_s_whatever_its_size(tmp_path: Path, answer: bytes) -> None:
    peer = Peer(BODY)
    assert asyncio.run(peer.ask(BodyBuffer(Echo(answer), tmp_path), PUSH)) == answer
    assert not peer.sent[-1].get("more_body", False)
    pull = Peer(b"which")
    assert asyncio.run(pull.ask(BodyBuffer(Echo(answer), tmp_path), PULL)) == answer


def test_many_large_bodies_are_worked_on_a_few_at_a_time(tmp_path: Path) -> None:
    async def crowd(number: int) -> Echo:
        echo = Echo()
        holding = BodyBuffer(echo, tmp_path, at_once=2)
        answers = await asyncio.gather(*(Peer(BODY).ask(holding, PUSH) for _ in range(number)))
        assert answers == [BODY] * number
        return echo

    assert asyncio.run(crowd(8)).most == 2


def test_a_peer_that_sends_slowly_takes_no_place(tmp_path: Path) -> None:
    async def story() -> None:
        never = asyncio.Event()
        echo = Echo()
        holding = BodyBuffer(echo, tmp_path, at_once=1)
        slow = asyncio.create_task(Peer(BODY, never.wait).ask(holding, PUSH))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        assert await Peer(BODY).ask(holding, PUSH) == BODY
        assert not slow.done()
        never.set()
        assert await slow == BODY

    asyncio.run(story())


def test_a_peer_that_leaves_in_the_middle_reaches_nobody(tmp_path: Path) -> None:
    echo, peer = Echo(), Peer(BODY)

    async def leaves() -> Any:
        return {"type": "http.disconnect"}

    peer.receive = leaves  # type: ignore[method-assign]
    assert asyncio.run(peer.ask(BodyBuffer(echo, tmp_path), PUSH)) == b""
    assert (echo.most, peer.sent) == (0, [])
    assert list(tmp_path.iterdir()) == []


def test_small_messages_pass_untouched(tmp_path: Path) -> None:
    echo, peer = Echo(), Peer(b"small")
    holding = BodyBuffer(echo, tmp_path, at_once=0)  # nothing large would ever pass
    assert asyncio.run(peer.ask(holding, "/v1/fleet/pull-messages")) == b"small"
