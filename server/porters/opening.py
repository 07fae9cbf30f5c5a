"""Opening a community's port: in this process, or through porters before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from nomoat.server.audit.certificate import ShowsCertificate
from nomoat.server.port.forwarded import Forwarded, networks
from nomoat.server.port.http_app import make_app
from nomoat.server.port.listening import ListenOptions, serving
from nomoat.server.port.services import Directory, PortServices
from nomoat.server.porters.team import Team, porters
from nomoat.server.rounds.watching import Traffic


@dataclass(frozen=True)
class OpenPort:
    """A port's number, and the bytes that went through it so far."""

    number: int
    carried: Callable[[], Traffic]


@contextmanager
def open_port(
    services: PortServices,
    directory: Directory,
    listening: ListenOptions,
    proxies: Sequence[str],
    shown: Callable[[ShowsCertificate], None],
) -> Iterator[OpenPort]:
    """Serve volunteers while the block runs, through as many porters as `listening` has processes.

    shown: is given what shows the certificate. NomoatError if the port is taken.
    """
    if not listening.processes:
        app = make_app(services)
        with serving(Forwarded(app, networks(proxies)), listening, shown) as number:
            yield OpenPort(number, lambda: app.carried)
        return
    with porters(Team(services, directory, listening, proxies)) as up:
        shown(up)
        yield OpenPort(up.port, lambda: replace(up.side.carried))
