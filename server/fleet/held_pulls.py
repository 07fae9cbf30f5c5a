"""Pulls that are held open until their node has a message."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HeldPull:
    """A pull that is held open."""

    loop: asyncio.AbstractEventLoop
    event: asyncio.Event

    def wake(self) -> None:
        """Let it go on, from any thread."""
        self.loop.call_soon_threadsafe(self.event.set)


class HeldPulls:
    """Wakes pulls that are held open until their node has a message; one pull a node."""

    def __init__(self, has_mail: Callable[[int], bool]) -> None:
        self._has_mail = has_mail
        self._lock = threading.Lock()
        self._waiting: dict[int, HeldPull] = {}
        self._closed = False

    def ring(self, nodes: Iterable[int]) -> None:
        """There is something for these nodes; callable from any thread."""
        with self._lock:
            for waiter in [self._waiting[node] for node in nodes if node in self._waiting]:
                waiter.wake()

    def dismiss(self, node: int) -> None:
        """End the pull this node left open, with nothing."""
        with self._lock:
            waiter = self._waiting.pop(node, None)
            if waiter is not None:
                waiter.wake()

    def close(self) -> None:
        """Let everybody go."""
        self._closed = True
        self.ring(list(self._waiting))

    async def wait(self, node: int, seconds: float) -> bool:
        """Return when `node` has a message, or after `seconds`.

        False if a newer pull of the same node took this one's place: whoever made this one is gone,
        and a message given to it would be lost.
        """
        waiter = HeldPull(asyncio.get_running_loop(), asyncio.Event())
        self.dismiss(node)
        with self._lock:
            self._waiting[node] = waiter
        try:
            # Looked at after registering: what comes in between rings.
            if not self._closed and not await asyncio.to_thread(self._has_mail, node):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(waiter.event.wait(), seconds)
        finally:
            with self._lock:
                newest = self._waiting.get(node) is waiter
                if newest:
                    del self._waiting[node]
        return newest
