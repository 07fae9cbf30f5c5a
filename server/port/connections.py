"""Connections: how many there may be, how long one may say nothing, how large a request's head is.

A connection costs memory and a file descriptor before anything is known of its peer. So a new one
always finds room while another is idle: the one that was idle longest, of the address that holds
the most, is closed for it. A peer whose request is being worked on, or held open, is not idle.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

from uvicorn.protocols.http.auto import AutoHTTPProtocol

MAX_CONNECTIONS = 8192
MAX_PER_ADDRESS = 512  # an office of 200 behind one address, two or three each
MAX_HEAD_BYTES = 32 << 10
HEAD_SECONDS = 10.0
SPARE_FILES = 256  # descriptors for everything that is not a connection


class Idling(Protocol):
    """A connection as the table sees it."""

    def idle(self) -> bool:
        """True while no request of its peer is being worked on."""

    def drop(self) -> None:
        """Close it at once."""


class ConnectionTable:
    """The open connections of one port. most: of all together; per_address: of one address."""

    def __init__(self, most: int = MAX_CONNECTIONS, per_address: int = MAX_PER_ADDRESS) -> None:
        self._most = most
        self._per_address = per_address
        self._by_address: dict[str, dict[Idling, None]] = {}  # least recently active first
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def admit(self, address: str, connection: Idling) -> bool:
        """Take a new connection in, in an idle one's place if need be; False if there is none."""
        here = self._by_address.setdefault(address, {})
        full = len(here) >= self._per_address
        if full or self._count >= self._most:
            crowd = here if full else max(self._by_address.values(), key=len)
            victim = next((other for other in crowd if other.idle()), None)
            if victim is None:
                self._forget_if_empty(address)
                return False
            victim.drop()
            self.remove(victim)
            here = self._by_address.setdefault(address, {})
        here[connection] = None
        self._count += 1
        return True

    def touch(self, address: str, connection: Idling) -> None:
        """Note that a request has come through a connection."""
        here = self._by_address.get(address, {})
        if connection in here:
            del here[connection]
            here[connection] = None

    def remove(self, connection: Idling) -> None:
        """Forget a connection that is closed, or was never taken in."""
        for address, here in self._by_address.items():
            if connection in here:
                del here[connection]
                self._count -= 1
                self._forget_if_empty(address)
                return

    def _forget_if_empty(self, address: str) -> None:
        if not self._by_address.get(address, True):
            del self._by_address[address]


def most_connections() -> int:
    """Return how many connections this process has file descriptors for; it asks for more first."""
    if sys.platform == "win32":
        return MAX_CONNECTIONS
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS + SPARE_FILES
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        soft = allowed
    usable = wanted if soft == resource.RLIM_INFINITY else soft
    return max(1, min(MAX_CONNECTIONS, usable - SPARE_FILES))


_BASE: Any = AutoHTTPProtocol


class GuardedConnection(_BASE):  # type: ignore[misc]
    """One connection. A head that is begun is finished in time, and is not endless."""

    table: ClassVar[ConnectionTable]
    head_seconds: ClassVar[float]
    shaken: ClassVar[Callable[[Any], None]]

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        type(self).shaken(transport.get_extra_info("peername"))
        self._address = (transport.get_extra_info("peername") or ("?",))[0]
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        if self.table.admit(self._address, self):
            self._await_head()
        else:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        if self.idle():
            self._head_bytes += len(data)
            if self._head_timer is None:
                self._await_head()
        super().data_received(data)
        if not self.idle():
            self.table.touch(self._address, self)
            self._head_bytes = 0
            self._stop_timer()
        elif self._head_bytes > MAX_HEAD_BYTES:
            self.drop()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self.table.remove(self)
        super().connection_lost(exc)

    def idle(self) -> bool:
        """True while no request of its peer is being worked on."""
        return self.cycle is None or bool(self.cycle.response_complete)

    def drop(self) -> None:
        """Close it at once."""
        self.transport.abort()

    def _await_head(self) -> None:
        loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        late: Callable[[], None] = self.drop
        self._head_timer = loop.call_later(self.head_seconds, late)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


def guarded(
    table: ConnectionTable,
    head_seconds: float = HEAD_SECONDS,
    shaken: Callable[[Any], None] = lambda _peer: None,
) -> type[asyncio.Protocol]:
    """Return uvicorn's HTTP protocol, held to `table`, to MAX_HEAD_BYTES and to `head_seconds`.

    shaken: told the peer of a connection as soon as it is through with its handshake.
    """
    held_to = {"table": table, "head_seconds": head_seconds, "shaken": staticmethod(shaken)}
    return type("GuardedConnection", (GuardedConnection,), held_to)
