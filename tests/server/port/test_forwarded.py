"""A request is taken at its sender's address, and nobody chooses it but proxies that were named."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from nomoat.aggregation.errors import UsageError
from nomoat.server.port.forwarded import Forwarded, networks, sender

PROXIES = networks(("127.0.0.1", "10.0.0.0/8", "2001:db8::/32"))


@pytest.mark.parametrize(
    ("peer", "forwarded", "found"),
    [
        ("127.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("127.0.0.1", ["1.1.1.1", "203.0.113.9"], "203.0.113.9"),  # the first is the sender's word
        ("127.0.0.1", ["203.0.113.9", "10.1.2.3"], "203.0.113.9"),  # two proxies of ours
        ("203.0.113.7", ["1.1.1.1"], "203.0.113.7"),  # no proxy
        ("127.0.0.1", [], "127.0.0.1"),
        ("127.0.0.1", ["nonsense"], "127.0.0.1"),
        ("127.0.0.1", ["1.1.1.1", ""], "127.0.0.1"),
        ("127.0.0.1", [" 203.0.113.9:4711 "], "203.0.113.9"),
        ("127.0.0.1", ['"[2001:470::1]:4711"'], "2001:470::1"),
        ("2001:db8::5", ["::ffff:203.0.113.9"], "203.0.113.9"),
        ("::ffff:127.0.0.1", ["203.0.113.9"], "203.0.113.9"),  # listening on ::
        ("127.0.0.1", ["10.0.0.1", "10.0.0.2"], "10.0.0.1"),  # a sender inside
    ],
)
def test_the_last_address_that_is_no_proxy_is_the_senders(
    peer: str, forwarded: list[str], found: str
) -> None:
    assert sender(peer, forwarded, PROXIES) == found


def test_a_proxy_that_was_not_named_changes_nothing() -> None:
    assert sender("127.0.0.1", ["203.0.113.9"], ()) == "127.0.0.1"


def test_what_is_no_network_is_told_by_its_setting() -> None:
    with pytest.raises(UsageError, match=r"server\.proxies: 'proxy\.example'"):
        networks(("proxy.example",))


def test_what_is_inside_sees_the_sender_and_the_headers_as_they_were() -> None:
    seen: list[Any] = []

    async def inside(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)

    headers = [(b"x-forwarded-for", b"1.1.1.1"), (b"x-forwarded-for", b"203.0.113.9")]
    scope = {"type": "http", "client": ("127.0.0.1", 5), "headers": headers}
    asyncio.run(Forwarded(inside, PROXIES)(scope, None, None))  # type: ignore[arg-type]
    asyncio.run(Forwarded(inside, ())(scope, None, None))  # type: ignore[arg-type]
    assert seen[0]["client"] == ("203.0.113.9", 5)
    assert seen[0]["headers"] == headers
    assert seen[1]["client"] == ("127.0.0.1", 5)
