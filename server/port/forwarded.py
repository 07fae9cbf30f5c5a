"""The address a request came from, where reverse proxies that its owner has named stand before us.

A proxy appends the address it was asked from to X-Forwarded-For. Read from its end, the first one
that is no proxy of ours is the sender's; what stands before it anybody may have written. Whoever
comes to us by itself is taken at its own address, whatever its headers say.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Final, TypeAlias

from nomoat.aggregation.errors import UsageError
from nomoat.server.port.request_limits import App, Receive, Scope, Send

HEADER: Final = b"x-forwarded-for"
MOST_HOPS: Final = 20

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address


def networks(named: Sequence[str]) -> tuple[Network, ...]:
    """Addresses and networks as they are written in settings; UsageError naming what is neither."""
    found = []
    for text in named:
        try:
            found.append(ipaddress.ip_network(text, strict=False))
        except ValueError:
            raise UsageError(
                f"server.proxies: {text!r} is neither an address nor a network (10.0.0.0/8)"
            ) from None
    return tuple(found)


def sender(peer: str, forwarded: Sequence[str], proxies: Sequence[Network]) -> str:
    """The address of whoever sent a request. forwarded: X-Forwarded-For, the first hop first."""
    at = peer
    for text in reversed(forwarded[-MOST_HOPS:]):
        if not _among(at, proxies):
            return at
        address = _address(text)
        if address is None:
            return at  # a proxy of ours wrote nonsense: it alone can be named
        at = str(address)
    return at


class Forwarded:
    """ASGI middleware: what is inside sees the sender's address."""

    def __init__(self, app: App, proxies: Sequence[Network]) -> None:
        self._app, self._proxies = app, tuple(proxies)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        peer = scope.get("client")
        if self._proxies and peer is not None:
            heads = [value for name, value in scope["headers"] if name == HEADER]
            hops = b",".join(heads).decode("latin-1").split(",") if heads else []
            scope = {**scope, "client": (sender(peer[0], hops, self._proxies), peer[1])}
        await self._app(scope, receive, send)


def _among(text: str, proxies: Sequence[Network]) -> bool:
    address = _address(text)
    return address is not None and any(address in network for network in proxies)


def _address(text: str) -> Address | None:
    """An address with or without brackets and port; IPv4 in IPv6 as IPv4."""
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found
