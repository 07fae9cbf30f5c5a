"""Opening a page: a server of its own in a thread, and the links that let a browser in.

The file beside it, private to its owner, holds the secret of the links and the page's address; it
is written anew by each opening, so `nomoat page link` can mint a key for the page that is open.
"""

from __future__ import annotations

import ipaddress
import json
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from starlette.types import ASGIApp

from nomoat.aggregation.errors import NomoatError, UsageError
from nomoat.desk.access.door import Door, DoorRules
from nomoat.desk.access.one_time_keys import NONCE_BYTES, SECRET_BYTES, mint
from nomoat.desk.access.sessions import Sessions
from nomoat.server.port.listening import ListenOptions, serving
from nomoat.storage.private import read_private, write_private

FIRST_LINK_S: Final = 24 * 3600
LINK_S: Final = 600


@dataclass(frozen=True)
class PageAddress:
    """An address for a page. port: the one that is liked; another that is free if it is taken.

    exact: fail rather than take another. certificate, key: needed unless host is loopback. names:
    others that a browser may have for it.
    """

    host: str = "127.0.0.1"
    port: int = 0
    exact: bool = False
    certificate: Path | None = None
    key: Path | None = None
    names: tuple[str, ...] = ()

    def options(self, port: int) -> ListenOptions:
        """To listen there on `port`."""
        return ListenOptions(self.host, port, self.certificate, self.key)

    def __post_init__(self) -> None:
        if self.certificate is None and not _loopback(self.host):
            raise UsageError(
                f"a page on {self.host} needs a certificate; without one it stays on 127.0.0.1"
            )


@dataclass(frozen=True)
class OpenPage:
    """A page that is open. link: opens it once."""

    url: str
    link: str


@contextmanager
def opened(
    app: ASGIApp, address: PageAddress, key_file: Path, refused: Callable[[str], str]
) -> Iterator[OpenPage]:
    """Serve `app` behind a door while the block runs.

    refused: makes the page that says why somebody may not come in. NomoatError if it cannot listen.
    """
    secret = secrets.token_bytes(SECRET_BYTES)
    secure = address.certificate is not None
    names = map(_in_url, (address.host, *address.names))
    rules = DoorRules(frozenset({"127.0.0.1", "localhost", "[::1]", *names}), secure)
    door = Door(app, Sessions(secret, time.time), rules, refused)
    with _listening(door, address) as port:
        url = f"{'https' if secure else 'http'}://{_in_url(_shown(address.host))}:{port}/"
        write_private(key_file, json.dumps({"url": url, "secret": secret.hex()}).encode())
        try:
            yield OpenPage(url, _link(url, secret, FIRST_LINK_S))
        finally:
            key_file.unlink(missing_ok=True)


def new_link(key_file: Path) -> str:
    """Return a link to the page that is open; NomoatError if none is."""
    if not key_file.exists():
        raise NomoatError("no page is open here; nomoat up and nomoat status --web open one")
    try:
        found = json.loads(read_private(key_file, "page key"))
        return _link(str(found["url"]), bytes.fromhex(found["secret"]), LINK_S)
    except (ValueError, KeyError, TypeError):
        raise NomoatError(f"{key_file} is damaged; open the page anew") from None


def _link(url: str, secret: bytes, life_s: int) -> str:
    key = mint(secret, secrets.token_bytes(NONCE_BYTES), int(time.time()) + life_s)
    return f"{url}?key={key}"


@contextmanager
def _listening(door: Door, address: PageAddress) -> Iterator[int]:
    with ExitStack() as resources:
        try:
            port = resources.enter_context(serving(door, address.options(address.port)))
        except NomoatError:
            if address.exact or not address.port:
                raise
            port = resources.enter_context(serving(door, address.options(0)))
        yield port


def _shown(host: str) -> str:
    return "localhost" if host in ("0.0.0.0", "::") else host


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
