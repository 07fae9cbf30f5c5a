"""Browsers that have shown a key: a bounded number of sessions, each with its own form token."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from nomoat.desk.access.one_time_keys import nonce_of

MOST_SESSIONS: Final = 50
IDLE_S: Final = 12 * 3600
MOST_NONCES: Final = 10_000


@dataclass
class BrowserSession:
    """One browser. form_token: what each of its forms carries. said: shown once, on its next page.

    seen: when it last asked for something, seconds of the caller's clock.
    """

    form_token: str
    seen: float
    said: list[str] = field(default_factory=list)

    def take_said(self) -> list[str]:
        """Return what is to be said, and forget it."""
        said, self.said = self.said, []
        return said


@dataclass
class Sessions:
    """The sessions of one page's server. secret: of its one-time keys. clock: unix seconds."""

    secret: bytes
    clock: Callable[[], float]
    draw: Callable[[], str] = lambda: secrets.token_urlsafe(32)
    _spent: OrderedDict[bytes, None] = field(default_factory=OrderedDict)
    _open: OrderedDict[str, BrowserSession] = field(default_factory=OrderedDict)

    def open(self, key: str) -> str | None:
        """Spend a key: the name of a new session; None if it is none, is over or was spent."""
        nonce = nonce_of(key, self.secret, self.clock())
        if nonce is None or nonce in self._spent:
            return None
        self._spent[nonce] = None
        if len(self._spent) > MOST_NONCES:  # by then the first of them has long been over
            self._spent.popitem(last=False)
        name = self.draw()
        self._open[name] = BrowserSession(self.draw(), self.clock())
        if len(self._open) > MOST_SESSIONS:
            self._open.popitem(last=False)
        return name

    def find(self, name: str) -> BrowserSession | None:
        """Return the session of that name, unless it was idle for too long."""
        session = self._open.get(name)
        if session is None:
            return None
        if self.clock() - session.seen > IDLE_S:
            del self._open[name]
            return None
        session.seen = self.clock()
        self._open.move_to_end(name)
        return session

    def close(self, name: str) -> None:
        """Forget a session."""
        self._open.pop(name, None)
