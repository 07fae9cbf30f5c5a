"""Nothing behind the gate sees a request that is unknown, undeclared, too large or too fast."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from nomoat.server.port.rate_limit import Rate
from nomoat.server.port.request_limits import FLEET, Caps, RequestLimits, allowed

CAPS = Caps(body_bytes=1000, in_flight_bytes=1500, address=Rate(1, 5), stranger=Rate(0.01, 2))


class Behind:
    """An application that reads the whole body and notes it; `status` is what it answers."""

    def __init__(self, status: int = 200) -> None:
        self.bodies: list[bytes] = []
        self.status = status

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        self.bodies.append(body)
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": b""})


def ask(
    gate: RequestLimits,
    path: str = "/v1/fleet/pull-messages",
    method: str = "POST",
    *,
    body: bytes = b"x",
    length: bytes | None = None,
    headers: tuple[tuple[bytes, bytes], ...] = (),
    address: str = "10.0.0.1",
) -> int:
    declared = str(len(body)).encode() if length is None else length
    scope = {
        "type": "http", "method": method, "path": path, "client": (address, 1),
        "headers": [*headers, *([(b"content-length", declared)] if declared else [])],
    }  # fmt: skip
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(gate(scope, receive, send))
    return int(sent[0]["status"])


def gate(behind: Behind, caps: Caps = CAPS, now: float = 0.0) -> RequestLimits:
    return RequestLimits(behind, caps, lambda: now)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/control/start-run", "/v1/control/list-nodes", "/v1/control/register-node",
        "/v1/runtime/push-messages", "/v1/runtime/acquire-task",
        "/v1/fleet/register-node", "/v1/fleet/unregister-node", "/v1/fleet/get-fab",
        "/v1/fleet/get-run", "/v1/fleet/", "/v1/fleet/pull-messages/", "//v1/fleet/pull-messages",
        "/", "/docs", "/openapi.json", "/health", "/adapter/../community.db", "/adapter/abc",
        "/v1/fleet/../control/start-run",
    ],
)  # fmt: skip
def test_what_is_not_for_volunteers_does_not_exist(path: str) -> None:
    behind = Behind()
    assert ask(gate(behind), path) == 404
    assert behind.bodies == []


@pytest.mark.parametrize("path", ["/community", "/roster", "/versions", "/adapter/" + "a" * 64])
def test_our_own_paths_exist(path: str) -> None:
    assert allowed("GET", path)
    assert ask(gate(Behind()), path, "GET", body=b"", length=b"") == 200


def test_a_fleet_path_is_post_only() -> None:
    assert ask(gate(Behind()), method="GET") == 404


def test_a_body_over_the_cap_is_refused_unread() -> None:
    behind = Behind()
    assert ask(gate(behind), body=b"x" * 1001) == 413
    assert ask(gate(behind), "/enroll", body=b"x" * (17 << 10)) == 413
    assert behind.bodies == []
    assert ask(gate(behind), body=b"x" * 1000) == 200


def test_a_body_of_undeclared_length_is_refused_unread() -> None:
    behind = Behind()
    assert ask(gate(behind), length=b"") == 411
    assert ask(gate(behind), headers=((b"transfer-encoding", b"chunked"),)) == 411
    assert ask(gate(behind), length=b"-5") == 411
    assert behind.bodies == []


def test_an_address_that_hurries_is_slowed_and_others_are_not() -> None:
    one = gate(Behind())
    assert [ask(one) for _ in range(6)] == [200] * 5 + [429]
    assert ask(one, address="10.0.0.2") == 200


def test_enrolments_have_a_tighter_pace() -> None:
    one = gate(Behind())
    assert [ask(one, "/enroll") for _ in range(3)] == [200, 200, 429]


def test_failed_authentications_use_up_an_addresss_welcome() -> None:
    one = gate(Behind(status=401))
    assert [ask(one) for _ in range(3)] == [401, 401, 429]


def test_bodies_in_flight_are_bounded_together() -> None:
    caps = Caps(body_bytes=1000, in_flight_bytes=1500, address=Rate(100, 100))
    statuses = []

    class Slow(Behind):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if not statuses:  # while the first is held here, a second one comes
                statuses.append(await second())
            await super().__call__(scope, receive, send)

    one = RequestLimits(Slow(), caps, lambda: 0.0)

    async def second() -> int:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http", "method": "POST", "path": "/v1/fleet/push-object",
            "client": ("10.0.0.9", 1), "headers": [(b"content-length", b"600")],
        }  # fmt: skip

        async def receive() -> Any:
            return {"type": "http.request", "body": b"y" * 600, "more_body": False}

        await one(scope, receive, send)
        return int(sent[0]["status"])

    assert ask(one, body=b"x" * 1000) == 200
    assert statuses == [503]
    assert ask(one, body=b"x" * 1000) == 200  # and what was in flight has been given back


async def never() -> Any:
    await asyncio.Event().wait()


def send_nothing(one: RequestLimits, length: int, address: str = "10.0.0.9") -> Any:
    """Declare a body and send none of it; (the coroutine, what is answered)."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/v1/fleet/push-object",
        "client": (address, 1), "headers": [(b"content-length", str(length).encode())],
    }  # fmt: skip
    return one(scope, never, send), sent


@pytest.mark.parametrize("caps", [Caps(body_seconds=0.05), Caps(pause_seconds=0.05)])
def test_a_body_that_trickles_is_given_up(caps: Caps) -> None:
    behind = Behind()
    unfinished, sent = send_nothing(RequestLimits(behind, caps, lambda: 0.0), 600)
    asyncio.run(unfinished)
    assert sent[0]["status"] == 408
    assert behind.bodies == []  # nothing behind the limits ever saw it


def test_bodies_that_are_declared_and_not_sent_take_no_room() -> None:
    caps = Caps(in_flight_bytes=1 << 20, pause_seconds=0.2, address=Rate(1000, 1000))
    one = RequestLimits(Behind(), caps, lambda: 0.0)

    async def run() -> list[int]:
        unfinished = [send_nothing(one, 8 << 20) for _ in range(80)]
        waiting = [asyncio.ensure_future(request) for request, _ in unfinished]
        await asyncio.sleep(0)
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": b"x" * 9, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http", "method": "POST", "path": "/v1/fleet/push-object",
            "client": ("10.0.0.1", 1), "headers": [(b"content-length", b"9")],
        }  # fmt: skip
        await one(scope, receive, send)
        assert not any(request.done() for request in waiting)
        await asyncio.gather(*waiting)
        return [int(sent[0]["status"]), *(int(answer[0]["status"]) for _, answer in unfinished)]

    assert asyncio.run(run()) == [200] + [408] * 80


def test_strangers_behind_a_members_address_do_not_lock_it_out() -> None:
    async def member(scope: Any) -> str | None:
        return "ada" if (b"key", b"ada") in scope["headers"] else None

    behind = Behind(status=401)
    one = RequestLimits(behind, CAPS, lambda: 0.0, member)
    assert [ask(one) for _ in range(3)] == [401, 401, 429]
    assert behind.bodies == []  # what a stranger sends is not even read
    behind.status = 200
    assert ask(one, headers=((b"key", b"ada"),)) == 200
    assert ask(one) == 429


def test_a_member_that_hurries_is_slowed_where_it_is() -> None:
    async def ada(_scope: Any) -> str | None:
        return "ada"

    caps = Caps(node=Rate(1, 4))
    one = RequestLimits(Behind(status=401), caps, lambda: 0.0, ada)
    assert [ask(one) for _ in range(5)] == [401] * 4 + [429]
    assert ask(one, address="10.0.0.2") == 401  # the member itself, elsewhere, is not


def test_every_byte_of_heads_and_bodies_is_counted_refused_or_not() -> None:
    behind = Behind()
    one = gate(behind)
    headers = ((b"x-key", b"value"),)
    ask(one, body=b"b" * 100, headers=headers)
    request = (
        b"POST /v1/fleet/pull-messages HTTP/1.1\r\nx-key: value\r\ncontent-length: 100\r\n\r\n"
    )
    assert one.carried.up == len(request) + 100
    answer = b"HTTP/1.1 200 OK\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n"
    assert one.carried.down == len(answer)
    before = one.carried
    assert ask(one, "/v1/control/start-run", body=b"") == 404
    assert one.carried.up > before.up
    assert one.carried.down > before.down


@pytest.mark.parametrize("call", ["pull-messages", "send-node-heartbeat", "activate-node"])
def test_small_calls_have_small_bodies_whoever_makes_them(call: str) -> None:
    async def ada(_scope: Any) -> str | None:
        return "ada"

    behind = Behind()
    one = RequestLimits(behind, Caps(), lambda: 0.0, ada)
    assert ask(one, FLEET + call, body=bytes(17 << 10)) == 413
    assert ask(one, FLEET + "push-messages", body=bytes(257 << 10)) == 413
    assert behind.bodies == []
    assert ask(one, FLEET + "push-object", body=bytes(5 << 20)) == 200
