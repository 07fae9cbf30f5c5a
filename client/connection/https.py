"""HTTPS to one coordinator, and to nobody else: every connection is checked against its authority.

Plain http.client: no redirect, no cookie, and an answer is read up to a limit. A proxy that the
environment names passes TLS on (proxies.py).
"""

from __future__ import annotations

import functools
import hashlib
import http.client
import json
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

from nomoat.aggregation.errors import NomoatError, Refused, RemoteProtocolError, Unreachable
from nomoat.aggregation.plain_text import one_line
from nomoat.aggregation.protocol.community.spoken import OURS
from nomoat.client.connection.proxies import proxy_for
from nomoat.flower.headers import FOLLOWS_KEYS, SPEAKS

TIMEOUT_S = 20.0
SMALL = 4 << 20
OF_EVERY_REQUEST: Final[Mapping[str, str]] = {FOLLOWS_KEYS: "1", SPEAKS: OURS.header}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A coordinator's address and the authority (`ca`, PEM) its certificate is checked against.

    An invitation holds only that authority's `fingerprint` (SHA-256 of its certificate, DER):
    with that alone nothing can be done but to ask the community to describe itself.
    """

    host: str
    port: int
    fingerprint: bytes | None = None
    ca: bytes | None = None

    @classmethod
    def at(
        cls, address: str, *, fingerprint: bytes | None = None, ca: bytes | None = None
    ) -> Endpoint:
        """The endpoint at host:port; RemoteProtocolError if the address is not one."""
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise RemoteProtocolError("invitation", "§5", f"holds no address: {address[:80]!r}")
        return cls(host.removeprefix("[").removesuffix("]"), int(port), fingerprint, ca)

    @property
    def address(self) -> str:
        """host:port as people write it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@functools.lru_cache(maxsize=16)
def tls_context(endpoint: Endpoint) -> ssl.SSLContext:
    """TLS 1.2+ that trusts the endpoint's authority alone; unverified if it is not known yet.

    RemoteProtocolError if what a community named as its authority is no certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if endpoint.ca is not None:
        try:
            context.load_verify_locations(cadata=endpoint.ca.decode("ascii"))
        except (ssl.SSLError, UnicodeDecodeError):
            reason = "its certificate authority is not a certificate"
            raise RemoteProtocolError("coordinator", "§5", reason) from None
    else:  # what comes through is signed by the community's key, and then this is done again
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def call(
    endpoint: Endpoint,
    method: str,
    target: str,
    *,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    limit: int = SMALL,
) -> bytes:
    """One request; its answer's body.

    Raises Unreachable, Refused (with the coordinator's one line) or RemoteProtocolError.
    """
    if endpoint.ca is None and (method != "GET" or headers or body):
        raise ValueError("nothing of ours goes to an endpoint whose authority is not known")
    shared = _shared.get()
    connection = shared.get(endpoint) if shared is not None else None
    if connection is None:
        connection = _connection(endpoint)
    kept = False
    try:
        connection.request(method, target, body, {**OF_EVERY_REQUEST, **(headers or {})})
        response = connection.getresponse()
        data = response.read(limit + 1)
        kept = shared is not None and not response.will_close and len(data) <= limit
    except ssl.SSLCertVerificationError as problem:
        raise _certificate(endpoint, problem) from None
    except (OSError, http.client.HTTPException) as problem:
        raise Unreachable(_silent(endpoint, problem)) from None
    finally:
        if kept and shared is not None:
            shared[endpoint] = connection
        else:
            connection.close()
    if len(data) > limit:
        raise RemoteProtocolError("coordinator", "§2", f"answered with more than {limit} bytes")
    return _body(response.status, data, endpoint)


def _silent(endpoint: Endpoint, problem: Exception) -> str:
    why, proxy = _why(problem), proxy_for(endpoint.host, endpoint.port)
    if proxy is None:
        return f"{endpoint.address} does not answer ({why}); is the coordinator running?"
    return (
        f"{endpoint.address} does not answer through the proxy {proxy.address} ({why}); is the "
        "coordinator running, and does the proxy (HTTPS_PROXY, NO_PROXY) lead there?"
    )


_shared: ContextVar[dict[Endpoint, http.client.HTTPSConnection] | None] = ContextVar(
    "connections", default=None
)


@contextmanager
def one_connection() -> Iterator[None]:
    """Let this thread's calls share one connection to each endpoint while the block runs."""
    connections: dict[Endpoint, http.client.HTTPSConnection] = {}
    before = _shared.set(connections)
    try:
        yield
    finally:
        _shared.reset(before)
        for connection in connections.values():
            connection.close()


def _connection(endpoint: Endpoint) -> http.client.HTTPSConnection:
    """A connection that is not open yet, through a proxy if one is named."""
    proxy, context = proxy_for(endpoint.host, endpoint.port), tls_context(endpoint)
    if proxy is None:
        return http.client.HTTPSConnection(
            endpoint.host, endpoint.port, timeout=TIMEOUT_S, context=context
        )
    connection = http.client.HTTPSConnection(
        proxy.host, proxy.port, timeout=TIMEOUT_S, context=context
    )
    connection.set_tunnel(endpoint.host, endpoint.port, proxy.headers)
    return connection


def fingerprint(ca: bytes) -> bytes:
    """SHA-256 of a certificate's DER, from its PEM; RemoteProtocolError if it is none."""
    try:
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(ca.decode("ascii"))).digest()
    except ValueError:
        reason = "its certificate authority is not a certificate"
        raise RemoteProtocolError("coordinator", "§5", reason) from None


def _body(status: int, data: bytes, endpoint: Endpoint) -> bytes:
    if status in (200, 204):
        return data
    reason = _reason(data)
    if reason is None:  # every refusal of a coordinator is a line of JSON
        raise Unreachable(
            f"{endpoint.address} answers {status}, but not as a coordinator of nomoat does: "
            f"something else listens there, or stands in between{_through(endpoint)}"
        )
    if status == 403:
        raise Refused(f"the coordinator says: {reason}")
    if status in (429, 502, 503, 504):
        raise Unreachable(f"{endpoint.address} is busy: {reason}")
    if status == 404:
        raise NotServed(f"{endpoint.address}: {reason}")
    raise RemoteProtocolError("coordinator", "§5", f"answered {status}: {reason}")


def _through(endpoint: Endpoint) -> str:
    proxy = proxy_for(endpoint.host, endpoint.port)
    return "" if proxy is None else f", as the proxy {proxy.address} may"


def _reason(data: bytes) -> str | None:
    """The one line of a refusal, printable and short: a coordinator may not draw on a terminal.

    None if it is none of a coordinator's.
    """
    try:
        said = json.loads(data[:2000])
        text = said.get("refused") or said.get("error") or said.get("detail")
    except (ValueError, AttributeError):
        return None
    return None if text is None else one_line(str(text))[:300]


class NotServed(NomoatError):
    """The coordinator has nothing under that path: no such file, or an older release."""


class UntrustedCertificate(Unreachable):
    """The answer comes from somebody without a certificate of the endpoint's authority."""


def _certificate(endpoint: Endpoint, problem: ssl.SSLCertVerificationError) -> NomoatError:
    why = problem.verify_message or "certificate not accepted"
    if "expired" in why:
        why += "; its operator renews it by restarting nomoat up; check this machine's clock too"
        return Unreachable(f"{endpoint.address}: {why}")
    if "not yet valid" in why:
        why += "; this machine's clock is probably behind"
        return Unreachable(f"{endpoint.address}: {why}")
    return UntrustedCertificate(f"{endpoint.address}: {why}")


def _why(problem: Exception) -> str:
    if isinstance(problem, TimeoutError):
        return f"no answer within {TIMEOUT_S:.0f} s"
    return str(getattr(problem, "strerror", None) or problem or type(problem).__name__)[:120]
