"""The proxy that the way to a coordinator leads through, as the environment or the system names it.

A proxy passes bytes: TLS is between this machine and the coordinator, whose certificate is checked
against the community's authority as ever.
"""

from __future__ import annotations

import base64
import ipaddress
import urllib.request
from dataclasses import dataclass, field
from functools import cache
from urllib.parse import SplitResult, unquote, urlsplit

from nomoat.aggregation.errors import UsageError


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy, asked to CONNECT. credentials: user:password, "" for none."""

    host: str
    port: int
    credentials: str = field(default="", repr=False)

    @property
    def address(self) -> str:
        """host:port as people write it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def headers(self) -> dict[str, str]:
        """Say who asks, if the proxy wants to know (RFC 7617)."""
        if not self.credentials:
            return {}
        encoded = base64.b64encode(self.credentials.encode()).decode("ascii")
        return {"Proxy-Authorization": f"Basic {encoded}"}


def proxy_for(host: str, port: int) -> Proxy | None:
    """Return the proxy for a coordinator; None: straight there.

    HTTPS_PROXY, ALL_PROXY and NO_PROXY are read as curl reads them, else the system's settings on
    macOS and Windows; this machine itself is never behind one. UsageError if another one is named
    than http://host:port: going on without it would show this machine's address, which whoever
    goes through Tor does not want.
    """
    if is_this_machine(host) or _bypassed(host, port):
        return None
    named = urllib.request.getproxies()
    text = named.get("https") or named.get("all") or ""
    return _read(text, host) if text else None


def is_this_machine(host: str) -> bool:
    """Return True of localhost, and of loopback addresses."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _bypassed(host: str, port: int) -> bool:
    """Return True if NO_PROXY, or the system, excepts a host: by name, suffix, address, network."""
    named = urllib.request.getproxies_environment().get("no", "")
    if any(_is_in(host, each.strip()) for each in named.split(",")):
        return True
    return bool(urllib.request.proxy_bypass(f"{host}:{port}"))


def _is_in(host: str, network: str) -> bool:
    """Return True if both are addresses, and one lies in the other: 10.0.0.0/8, fd00::/8."""
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(network.strip("[]"), False)
    except ValueError:
        return False


@cache
def _read(text: str, coordinator: str) -> Proxy:
    """The proxy that a text names on the way to a coordinator; UsageError of any other."""
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        host, port = parts.hostname, parts.port or 80
    except ValueError:
        host, port, parts = None, 0, urlsplit("")
    if parts.scheme != "http" or not host or not host.isascii():
        kind = f"a {parts.scheme}:// proxy" if parts.scheme.isalnum() else "a proxy"
        raise UsageError(
            f"HTTPS_PROXY or ALL_PROXY names {kind} on the way to {coordinator}, and nomoat goes "
            "through http://host:port alone: name such a one (Tor, privoxy and most proxies open "
            f"one beside), or go there without any: NO_PROXY={coordinator}"
        )
    return Proxy(host, port, _credentials(parts))


def _credentials(parts: SplitResult) -> str:
    if parts.username is None:
        return ""
    return f"{unquote(parts.username)}:{unquote(parts.password or '')}"
