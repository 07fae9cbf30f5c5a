"""Pulls that are held open until their node has a message."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol


class HeldPull(Protocol):
    """A pull that is held open, in the loop that serves it."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop in which it goes on."""

    def wake(self) -> None:
        """Go on; called in `loop`, perhaps more than once."""


@dataclass(frozen=True, slots=True)
class AwaitedPull:
    """A pull whose task waits for `event`."""

    loop: asyncio.AbstractEventLoop
    event: asyncio.Event

    def wake(self) -> None:
        """Let the task go on."""
        self.event.set()


class HeldPulls:
    """Wakes pulls that are held open until their node has news; one pull a node.

    news: True of a node that there is something to tell.
    """

    def __init__(self, news: Callable[[int], bool]) -> None:
        self._news = news
        self._lock = threading.Lock()
        self._waiting: dict[int, HeldPull] = {}
        self._closed = False

    def __len__(self) -> int:
        return len(self._waiting)

    def ring(self, nodes: Iterable[int]) -> None:
        """There is something for these nodes; callable from any thread."""
        with self._lock:
            _wake([self._waiting[node] for node in nodes if node in self._waiting])

    def dismiss(self, node: int) -> None:
        """End the pull this node left open, with nothing."""
        with self._lock:
            left = self._waiting.pop(node, None)
        if left is not None:
            _wake([left])

    def close(self) -> None:
        """Let everybody go."""
        self._closed = True
        self.ring(list(self._waiting))

    def begin(self, node: int, pull: HeldPull) -> None:
        """Have a pull wait in place of the one before; callable from any thread."""
        with self._lock:
            left = self._waiting.get(node)
            self._waiting[node] = pull
        if left is not None:
            _wake([left])
        # Looked at after registering: what comes in between rings.
        if self._closed or self._news(node):
            _wake([pull])

    async def wait(self, node: int, pull: AwaitedPull, seconds: float) -> bool:
        """Return when `node` has news, or after `seconds`; `pull` has begun. As `over`."""
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await pull.event.wait()
        finally:
            newest = self.over(node, pull)
        return newest

    def over(self, node: int, pull: HeldPull) -> bool:
        """A pull waits no longer.

        False if a newer pull of the same node took this one's place: whoever made this one is gone,
        and a message given to it would be lost.
        """
        with self._lock:
            newest = self._waiting.get(node) is pull
            if newest:
                del self._waiting[node]
        return newest


def _wake(pulls: Iterable[HeldPull]) -> None:
    """Let these go on: one turn of their loop for all, since a turn costs a system call."""
    by_loop: dict[asyncio.AbstractEventLoop, list[HeldPull]] = {}
    for pull in pulls:
        by_loop.setdefault(pull.loop, []).append(pull)
    for loop, woken in by_loop.items():
        with contextlib.suppress(RuntimeError):  # the loop has ended, and its pulls with it
            loop.call_soon_threadsafe(_go_on, woken)


def _go_on(pulls: Iterable[HeldPull]) -> None:
    for pull in pulls:
        pull.wake()
