"""A port process: `python -m nomoat.server.porters.porter SETTINGS`, its link as standard input.

It ends TLS, holds connections and requests to their limits, checks who signed a request's head,
and passes on what is left. It ends when the round process does. Nothing of Flower is loaded here.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import msgpack

from nomoat.aggregation.errors import NomoatError
from nomoat.server.port.body_buffer import BodyBuffer
from nomoat.server.port.forwarded import Forwarded, networks
from nomoat.server.port.listening import ListenOptions, serving
from nomoat.server.port.rate_limit import Rate
from nomoat.server.port.request_limits import Caps, RequestLimits
from nomoat.server.porters.member_book import MemberBook
from nomoat.server.porters.porter_side import RoundLink, renewing
from nomoat.storage.log_lines import PlainFormatter

CANNOT_LISTEN = 3  # exit status


@dataclass(frozen=True)
class PorterSettings:
    """The words a porter is started with. processes: of them all; folder: for large bodies.

    founding: the community's first key, in hex. log_level: as the round process has it.
    """

    host: str
    port: int
    certificate: str
    key: str
    processes: int
    folder: str
    founding: str
    proxies: Sequence[str]
    log_level: int

    def word(self) -> str:
        """As one word of a command line."""
        packed: bytes = msgpack.packb(asdict(self))
        return packed.hex()

    @classmethod
    def of(cls, word: str) -> PorterSettings:
        """Read what `word` wrote."""
        return cls(**msgpack.unpackb(bytes.fromhex(word)))


def divided(caps: Caps, processes: int) -> Caps:
    """Each process's part of what a peer, and all together, may do: never more in their sum."""

    def part(rate: Rate) -> Rate:
        return Rate(rate.per_s / processes, max(1.0, rate.burst / processes))

    return replace(
        caps,
        in_flight_bytes=max(caps.body_bytes, caps.in_flight_bytes // processes),
        address=part(caps.address),
        stranger=part(caps.stranger),
        node=part(caps.node),
    )


def run(settings: PorterSettings, link: socket.socket) -> None:
    """Serve until the round process ends."""
    shown: list[ssl.SSLContext] = []
    certificate, key = Path(settings.certificate), Path(settings.key)
    book = MemberBook(bytes.fromhex(settings.founding))
    round_link = RoundLink(
        book,
        lambda: limits.carried,
        renewing(lambda: shown[0] if shown else None, certificate, key),
    )
    caps = divided(Caps(), settings.processes)
    buffered = BodyBuffer(round_link, Path(settings.folder))
    limits = RequestLimits(buffered, caps, time.monotonic, book.member)
    listening = ListenOptions(
        settings.host, settings.port, certificate, key, processes=settings.processes
    )
    app = Forwarded(limits, networks(settings.proxies))
    with serving(app, listening, shown.append, lambda: round_link.open(link)):
        round_link.ready()
        threading.Event().wait()  # RoundLink ends the process


def main() -> None:
    """Run as a process of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the round process's
    settings = PorterSettings.of(sys.argv[1])
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PlainFormatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=settings.log_level, handlers=[handler])
    try:
        run(settings, socket.socket(fileno=os.dup(0)))
    except NomoatError as problem:
        logging.error("%s", problem)
        sys.exit(CANNOT_LISTEN)


if __name__ == "__main__":
    main()
