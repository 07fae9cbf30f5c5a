"""Connections that have not shaken hands yet: how many there may be, all together and an address.

What they take in memory is taken before any protocol of ours is asked, so they are counted where
they are accepted. A new one always finds room: the oldest of the address that has the most makes
it. Whoever means it is done in a fraction of a second; TLS has ten seconds. asyncio leaves a
connection that was cut in a cycle of references, some 35 KiB of it outside of Python's sight, so
nothing would tell the collector to look.
"""

from __future__ import annotations

import contextlib
import gc
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

MOST_SHAKING = 256  # some 150 KiB each
MOST_OF_AN_ADDRESS = 128
LEFT_OVER = 128  # that were cut, before they are collected, at most once in COLLECT_S
COLLECT_S = 0.5
IN_A_TURN = 16


@dataclass
class ShakingHands:
    """The accepted connections that are not known to be through with their handshake.

    clock: seconds that only go forward. collect: gives back what those that were cut have taken.
    """

    most: int = MOST_SHAKING
    most_of_an_address: int = MOST_OF_AN_ADDRESS
    clock: Callable[[], float] = time.monotonic
    collect: Callable[[], object] = gc.collect
    _left_over: int = 0
    _collected: float = 0.0
    _by_address: dict[str, dict[Any, socket.socket]] = field(default_factory=dict)  # oldest first

    def __len__(self) -> int:
        return sum(map(len, self._by_address.values()))

    def begin(self, peer: tuple[Any, ...], connection: socket.socket) -> None:
        """Count a connection that was accepted; the oldest of the largest crowd makes room."""
        here = self._by_address.setdefault(str(peer[0]), {})
        here[peer] = connection
        if len(here) > self.most_of_an_address or len(self) > self.most:
            self._sweep()
        if len(here) > self.most_of_an_address:
            self._drop(here)
        elif len(self) > self.most:
            self._drop(max(self._by_address.values(), key=len))

    def end(self, peer: tuple[Any, ...] | None) -> None:
        """Note that a connection is through with its handshake."""
        if peer is not None and (here := self._by_address.get(str(peer[0]))) is not None:
            here.pop(peer, None)
            if not here:
                del self._by_address[str(peer[0])]

    def _drop(self, crowd: dict[Any, socket.socket]) -> None:
        peer = next(iter(crowd))
        connection = crowd[peer]
        self.end(peer)
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)  # its transport reads the end, and closes it
        self._left_over += 1
        if self._left_over >= LEFT_OVER and self.clock() - self._collected >= COLLECT_S:
            self._left_over, self._collected = 0, self.clock()
            self.collect()

    def _sweep(self) -> None:
        """Forget those that were closed."""
        for here in list(self._by_address.values()):
            for peer in [peer for peer, one in here.items() if one.fileno() < 0]:
                self.end(peer)


class CountingListener(socket.socket):
    """A listening socket whose accepted connections are counted in `shaking`."""

    shaking: ShakingHands
    turn: int = 0

    @classmethod
    def of(cls, listener: socket.socket, shaking: ShakingHands) -> CountingListener:
        """Take a listening socket over; the one given is closed."""
        made = cls(listener.family, listener.type, listener.proto, listener.detach())
        made.shaking = shaking
        return made

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a connection, and count it.

        An event loop accepts as many as it gets before it does anything else; after IN_A_TURN it
        is told that there are none, looks after the others, and comes back.
        """
        self.turn = (self.turn + 1) % (IN_A_TURN + 1)
        if self.turn == 0:
            raise BlockingIOError
        connection, peer = super().accept()
        self.shaking.begin(peer, connection)
        return connection, peer
