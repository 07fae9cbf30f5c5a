"""A browser without a screen: what a page's server answers, with cookies kept."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest
from starlette.testclient import TestClient
from starlette.types import ASGIApp

from nomoat.desk.access.door import Door, DoorRules
from nomoat.desk.access.one_time_keys import mint
from nomoat.desk.access.sessions import Sessions
from nomoat.desk.volunteer.site import refused

SECRET = b"s" * 32
ADDRESS = "http://127.0.0.1:8444"


class Browser:
    """Looks at the pages of an application behind a door, and fills in its forms."""

    def __init__(self, app: ASGIApp, rules: DoorRules = DoorRules()) -> None:  # noqa: B008
        sessions = Sessions(SECRET, time.time)
        self.door = Door(app, sessions, rules, refused)
        self.client = TestClient(self.door, base_url=ADDRESS)
        self._nonce = 0

    def key(self) -> str:
        self._nonce += 1
        return mint(SECRET, self._nonce.to_bytes(12, "big"), int(time.time()) + 60)

    def enter(self) -> Browser:
        assert self.client.get(f"/?key={self.key()}").status_code == 200
        return self

    def html(self, path: str) -> str:
        found = self.client.get(path)
        assert found.status_code == 200, found.text
        return found.text

    def token(self) -> str:
        found = re.search(r'name="form_token" value="([^"]+)"', self.html("/"))
        assert found is not None
        return found[1]

    def send(self, path: str, **fields: str) -> str:
        """Send a form and return the page it ends in."""
        found = self.client.post(path, data={"form_token": self.token(), **fields})
        assert found.status_code == 200, found.text
        return found.text


@pytest.fixture
def browser() -> Callable[[ASGIApp], Browser]:
    return lambda app: Browser(app).enter()
