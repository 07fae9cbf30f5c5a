"""A server on a socket that is bound before a model is loaded: a busy port is told at once."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from fastapi import FastAPI

from nomoat.aggregation.errors import NomoatError

LEAVE_S = 3  # answers that are streamed when the server ends have this long


@contextlib.contextmanager
def bound(host: str, port: int) -> Iterator[socket.socket]:
    """A socket bound to an address; NomoatError in one line if it cannot be."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.socket(family, socket.SOCK_STREAM)
    except OSError as problem:
        raise NomoatError(f"cannot listen on {host}:{port}: {problem.strerror}") from None
    with listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
            listening.listen(128)
        except OSError as problem:
            raise NomoatError(
                f"cannot listen on {host}:{port}: {problem.strerror}; choose another --port"
            ) from None
        yield listening


def serve_app(app: FastAPI, listening: socket.socket) -> None:
    """Answer until SIGINT or SIGTERM."""
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, ws="none", timeout_graceful_shutdown=LEAVE_S
    )
    with contextlib.suppress(KeyboardInterrupt):  # how a server ends
        uvicorn.Server(config).run(sockets=[listening])
