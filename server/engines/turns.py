"""Taking turns at one connection, and who does not wait for a server that is away."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar

from nomoat.server.engines.engine import DatabaseAway, RecordsEngine

HURRY_S = 5.0  # for which a peer's request waits for its turn at most
LOOK_S = 0.05

_hurried: ContextVar[bool] = ContextVar("hurried", default=False)


@contextmanager
def hurried() -> Iterator[None]:
    """Have this thread wait for no server while the block runs: DatabaseAway instead.

    For requests of peers: a thread that stood still would be one less for everybody else's.
    """
    before = _hurried.set(True)
    try:
        yield
    finally:
        _hurried.reset(before)


def is_hurried() -> bool:
    """True inside `hurried`."""
    return _hurried.get()


def turn(lock: threading.RLock, engine: RecordsEngine) -> AbstractContextManager[object]:
    """Hold a connection's lock; DatabaseAway if that were to wait for its server, in a hurry."""
    return _short(lock, engine) if engine.remote and _hurried.get() else lock


@contextmanager
def _short(lock: threading.RLock, engine: RecordsEngine) -> Iterator[None]:
    until = time.monotonic() + HURRY_S
    while not lock.acquire(timeout=LOOK_S):
        if engine.away or time.monotonic() > until:
            raise DatabaseAway(f"{engine.place} does not answer now")
    try:
        yield
    finally:
        lock.release()
