"""The roster of a community whose records lie on a server, looked at beside the calls it judges."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from nomoat.aggregation.errors import NomoatError
from nomoat.server.community.members import Registrar

log = logging.getLogger(__name__)

LOOK_S = 0.5


@contextmanager
def watched(registrar: Registrar) -> Iterator[None]:
    """Have calls judged by the roster as it was looked at last, while the block runs.

    A trip to a server for each call would cost more than the call, and while the server is away
    all would stand still. A file answers within microseconds: there each call asks.
    """
    if not registrar.database.remote:
        yield
        return
    registrar.roster()
    registrar.followed = True
    stop = threading.Event()
    thread = threading.Thread(target=_look, args=(registrar, stop), name="roster", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        registrar.followed = False


def _look(registrar: Registrar, stop: threading.Event) -> None:
    while not stop.wait(LOOK_S):
        try:
            registrar.roster()
        except NomoatError as problem:
            log.debug("the roster is the one of before: %s", problem)
