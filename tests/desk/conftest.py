"""A browser without a screen, and a community's folder with versions and no port."""

from __future__ import annotations

import datetime
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.testclient import TestClient
from starlette.types import ASGIApp

from builders import adapter
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.enrolment import Enrol, bind
from nomoat.aggregation.protocol.invitation import Claims
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.desk.access.door import Door, DoorRules
from nomoat.desk.access.one_time_keys import mint
from nomoat.desk.access.sessions import Sessions
from nomoat.desk.volunteer.site import refused
from nomoat.server.community.folder import Folder, create
from nomoat.server.community.membership_rules import Admission
from nomoat.server.community.opened import OpenCommunity
from nomoat.server.community.settings import (
    BaseModelSettings,
    CommunityRoundSettings,
    CommunitySettings,
    Settings,
)
from nomoat.server.community.versions import Provenance

NOW = 1_800_000_000
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
        pages = self.html("/") + self.client.get("/settings").text
        found = re.search(r'name="form_token" value="([^"]+)"', pages)
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


@pytest.fixture
def community(tmp_path: Path) -> OpenCommunity:
    """The community called town."""
    settings = Settings(
        community=CommunitySettings(name="town", admission=Admission.APPROVE),
        base=BaseModelSettings(model="m", folder=Path("m"), hash="ab" * 32, bytes=1),
        rounds=CommunityRoundSettings(seed="00" * 32),
    )
    made = Folder(tmp_path / "town")
    create(made, settings, datetime.datetime.now(datetime.UTC), b"\7" * 32)
    opened = OpenCommunity.open(made.root)
    for number in range(3):
        measured = Provenance(number, "fedavg", ("ada",), 3.0 - number / 10, 3.1)
        opened.versions.add(adapter(number), measured, NOW + number)
    return opened


@pytest.fixture
def enrol(community: OpenCommunity) -> Callable[[str], None]:
    """Have a volunteer of this name ask for admission."""

    def asked(name: str) -> None:
        registrar = community.registrar
        number = len(registrar.database.applicants()) + 1
        claims = Claims(
            "localhost:1", b"\0" * 32, registrar.key.public, bytes([number] * 16), 1, NOW + 60
        )
        identity = SigningKey(bytes([number] * 32))
        node = ec.generate_private_key(ec.SECP384R1())
        token = registrar.invite(claims).token()
        binding = bind(name, identity, node, registrar.key.public)
        registrar.enrol(wire.encode(Enrol(token, binding)).head, NOW)

    return asked
