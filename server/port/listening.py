"""Serving an ASGI application in a thread: over TLS, or to this machine alone without it.

A TLS connection takes memory before its peer is known: asyncio gives each a buffer of 256 KiB and
a minute to shake hands. Here it is TLS_BUFFER_BYTES and HANDSHAKE_SECONDS.
"""

from __future__ import annotations

import asyncio
import asyncio.sslproto
import errno
import functools
import math
import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from nomoat.aggregation.errors import NomoatError
from nomoat.server.port.connections import (
    MAX_PER_ADDRESS,
    ConnectionTable,
    guarded,
    most_connections,
)
from nomoat.server.port.handshakes import CountingListener, ShakingHands

TLS_BUFFER_BYTES = 32 << 10  # two TLS records
HANDSHAKE_SECONDS = 10.0


@dataclass(frozen=True)
class ListenOptions:
    """An address to listen on, and the certificate shown there. port 0 picks a free one.

    Without a certificate what is said can be read on the way: for loopback addresses alone.
    processes: so many of this user's listen there together (Linux deals connections out to them),
    each with its part of what an address may have; 0: this one alone.
    """

    host: str
    port: int
    certificate: Path | None
    key: Path | None
    processes: int = 0


async def nothing_more() -> None:
    """Nothing to begin with in the loop."""


@contextmanager
def serving(
    app: Callable[..., Awaitable[None]],
    listening: ListenOptions,
    shown: Callable[[ssl.SSLContext], None] = lambda _context: None,
    begin: Callable[[], Awaitable[None]] = nothing_more,
) -> Iterator[int]:
    """Serve `app` in a thread while the block runs; yields the port.

    shown: is given what holds the certificate, so that another can be shown without an end.
    begin: called in the thread's loop before anything is served.
    NomoatError if the port is taken or the certificate cannot be read.
    """
    shaking = ShakingHands()
    shared = listening.processes > 0
    bound = CountingListener.of(bind(listening.host, listening.port, shared=shared), shaking)
    port = int(bound.getsockname()[1])
    try:
        config = _configured(app, listening, shaking)
    except (OSError, ssl.SSLError) as problem:
        bound.close()
        raise NomoatError(f"certificate {listening.certificate}: {problem}") from None
    if config.ssl is not None:
        shown(config.ssl)
    server = uvicorn.Server(config)
    thread = threading.Thread(
        target=lambda: asyncio.run(_serve(server, bound, begin)), name="fleet", daemon=True
    )
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.005)
        yield port
    finally:
        server.should_exit = True
        thread.join(timeout=10)
        bound.close()


def _configured(
    app: Callable[..., Awaitable[None]], listening: ListenOptions, shaking: ShakingHands
) -> uvicorn.Config:
    """Return uvicorn's settings with the certificate read; OSError or SSLError if it is none."""
    of_an_address = math.ceil(MAX_PER_ADDRESS / max(1, listening.processes))
    table = ConnectionTable(most_connections(), of_an_address)
    config = uvicorn.Config(
        app,
        ssl_certfile=listening.certificate,
        ssl_keyfile=listening.key,
        log_level="critical",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="off",
        ws="none",
        timeout_keep_alive=75,
        http=guarded(table, shaken=shaking.end),
        timeout_graceful_shutdown=2,
    )
    config.load()
    return config


async def _serve(
    server: uvicorn.Server, bound: socket.socket, begin: Callable[[], Awaitable[None]]
) -> None:
    await begin()
    if server.config.ssl is not None:
        asyncio.sslproto.SSLProtocol.max_size = TLS_BUFFER_BYTES
        loop = asyncio.get_running_loop()
        bounded = functools.partial(loop.create_server, ssl_handshake_timeout=HANDSHAKE_SECONDS)
        loop.create_server = bounded  # type: ignore[method-assign] # uvicorn has no such option
    await server.serve([bound])
    for connection in list(server.server_state.connections):
        # A peer in the middle of a request would wait for the answer of a server that is gone.
        connection.transport.abort()
    await asyncio.sleep(0)


def bind(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A socket to listen with; NomoatError in one line if there is none to be had.

    "::" takes IPv4 connections too. shared: others of this user's may listen there, too.
    """
    where, family = (f"[{host}]", socket.AF_INET6) if ":" in host else (host, socket.AF_INET)
    listener = None
    try:
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if host == "::":  # some systems keep it to IPv6 unless they are told
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind((host, port))
    except OSError as problem:
        if listener is not None:
            listener.close()
        taken = problem.errno in (errno.EADDRINUSE, errno.EACCES)
        other = "--port" if taken else "--host"
        reason = f"{problem.strerror}; choose another {other}"
        raise NomoatError(f"cannot listen on {where}:{port}: {reason}") from None
    return listener
