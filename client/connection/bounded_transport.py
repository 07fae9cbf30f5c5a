"""HTTP to one coordinator whose answers are bounded, and what an answer says of the clocks."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from email.utils import parsedate_to_datetime

import httpx

from nomoat.client.connection.proxies import Proxy
from nomoat.flower.headers import MAX_SKEW_S

ANSWER_BYTES = 12 << 20  # one object (≤ 5 MiB) and what surrounds it; more is an attack


def skew(response: httpx.Response, now: float) -> str | None:
    """Say that the two clocks are too far apart for signatures; None if they are not."""
    try:
        ahead = round(now - parsedate_to_datetime(response.headers["date"]).timestamp())
    except (KeyError, ValueError):
        return None
    if abs(ahead) <= MAX_SKEW_S:
        return None
    where = "ahead of" if ahead > 0 else "behind"
    return (
        f"this machine's clock is {abs(ahead)} s {where} the coordinator's; set the wrong one (NTP)"
    )


class BoundedTransport(httpx.HTTPTransport):
    """TLS to one coordinator, through a proxy if there is one.

    An answer longer than ANSWER_BYTES, or packed, is cut off.
    """

    def __init__(self, context: ssl.SSLContext, proxy: Proxy | None = None) -> None:
        through = None
        if proxy is not None:
            through = httpx.Proxy(f"http://{proxy.address}", headers=proxy.headers)
        super().__init__(
            verify=context,
            limits=httpx.Limits(max_connections=4),
            retries=0,
            trust_env=False,
            proxy=through,
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request."""
        response = super().handle_request(request)
        if "content-encoding" in response.headers:  # a small body could unpack to gigabytes
            response.close()
            raise httpx.RemoteProtocolError("the answer is packed", request=request)
        assert isinstance(response.stream, httpx.SyncByteStream)
        response.stream = BoundedStream(response.stream, request)
        return response


class BoundedStream(httpx.SyncByteStream):
    """A byte stream that ends in an error after ANSWER_BYTES."""

    def __init__(self, stream: httpx.SyncByteStream, request: httpx.Request) -> None:
        self._stream = stream
        self._request = request

    def __iter__(self) -> Iterator[bytes]:
        size = 0
        for chunk in self._stream:
            size += len(chunk)
            if size > ANSWER_BYTES:
                raise httpx.RemoteProtocolError("the answer is too long", request=self._request)
            yield chunk

    def close(self) -> None:
        """Close the connection or give it back."""
        self._stream.close()
