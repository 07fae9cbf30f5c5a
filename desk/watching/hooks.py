"""Notices of events to addresses that asked for them: JSON over HTTP, signed.

    POST URL
    Content-Type: application/json
    Nomoat-Timestamp: unix seconds
    Nomoat-Signature: sha256=HMAC-SHA-256(key, timestamp ‖ "." ‖ body), hex

The key is 32 random bytes in keys/hooks.key, hex; whoever receives notices has to know it. Notices
are sent by a thread of their own, a few times if they fail, and dropped when too many wait.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import httpx

from nomoat.aggregation.errors import NomoatError
from nomoat.desk.watching.events import CommunityEvent
from nomoat.desk.watching.news_queue import NewsQueue
from nomoat.storage.private import create_private, read_private

WAITS_S: Final = (1.0, 5.0, 30.0)
TIMEOUT_S: Final = 10.0

log = logging.getLogger(__name__)

Post = Callable[[str, bytes, dict[str, str]], int]  # (URL, body, headers) → status


def hook_key(path: Path) -> bytes:
    """The key of a community's hooks, made if there is none; NomoatError if it is damaged."""
    if not path.exists():
        create_private(path, secrets.token_hex(32).encode() + b"\n")
    try:
        return bytes.fromhex(read_private(path, "hook key").decode("ascii").strip())
    except ValueError:
        raise NomoatError(f"hook key {path} is damaged; delete it for a new one") from None


def signature(key: bytes, timestamp: str, body: bytes) -> str:
    """The value of Nomoat-Signature."""
    digest = hmac.new(key, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    return f"sha256={digest}"


def post(url: str, body: bytes, headers: dict[str, str]) -> int:
    """Send one notice; its status. Redirects are not followed."""
    return httpx.post(url, content=body, headers=headers, timeout=TIMEOUT_S).status_code


class Hooks(NewsQueue):
    """Sends events to every one of `urls`. clock: unix seconds; pause: waits, True to give up."""

    def __init__(
        self,
        urls: Sequence[str],
        key: bytes,
        send: Post = post,
        clock: Callable[[], float] = time.time,
        waits_s: Sequence[float] = WAITS_S,
    ) -> None:
        super().__init__()
        self._urls, self._key, self._send = tuple(urls), key, send
        self._clock, self._waits_s = clock, tuple(waits_s)

    def tell(self, event: CommunityEvent, stop: threading.Event) -> None:
        """Send one event to every address."""
        for url in self._urls:
            self._deliver(url, event, stop)

    def _deliver(self, url: str, event: CommunityEvent, stop: threading.Event) -> None:
        body = event.line().rstrip(b"\n")
        problem = ""
        for wait_s in (*self._waits_s, None):
            try:
                status = self._send(url, body, self._headers(body))
                if 200 <= status < 300:
                    return
                problem = f"status {status}"
            except (httpx.HTTPError, httpx.InvalidURL, OSError) as failed:
                problem = type(failed).__name__
            if wait_s is None or stop.wait(wait_s):
                break
        log.warning("hook %s was not told of %s: %s", _host(url), event.name, problem)

    def _headers(self, body: bytes) -> dict[str, str]:
        timestamp = str(int(self._clock()))
        return {
            "content-type": "application/json",
            "nomoat-timestamp": timestamp,
            "nomoat-signature": signature(self._key, timestamp, body),
        }


def _host(url: str) -> str:
    """Return the part of a URL that may be logged: its path may be a secret."""
    try:
        return httpx.URL(url).host
    except httpx.InvalidURL:
        return "?"
