"""A certificate that would end while a community is up is replaced, and the new one is shown."""

from __future__ import annotations

import datetime
import socket
import ssl
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from nomoat.server.audit.certificate import CertificateRenewal
from nomoat.server.community.folder import Folder, create
from nomoat.server.community.settings import (
    BaseModelSettings,
    CommunityRoundSettings,
    CommunitySettings,
    Settings,
)
from nomoat.server.port.listening import ListenOptions, serving

MADE = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=826)  # ended yesterday
SETTINGS = Settings(
    community=CommunitySettings(name="Town"),
    base=BaseModelSettings(model="pocket", folder=Path("m"), hash="ab" * 32, bytes=5),
    rounds=CommunityRoundSettings(seed="cd" * 32, min_volunteers=3),
)


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    """An application that nobody asks anything."""


def shaken(port: int, authority: Path) -> str | None:
    """Shake hands as a volunteer does; None, or why the certificate is not accepted."""
    trusting = ssl.create_default_context(cafile=str(authority))
    with socket.create_connection(("127.0.0.1", port), timeout=30) as line:
        try:
            trusting.wrap_socket(line, server_hostname="localhost").close()
        except ssl.SSLCertVerificationError as problem:
            return problem.verify_message
    return None


def test_a_certificate_that_ended_is_replaced_while_the_port_stays_open(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    create(folder, SETTINGS, MADE, b"\1" * 32)
    community = cast(Any, SimpleNamespace(folder=folder, settings=SETTINGS))
    renewal = CertificateRenewal(community, threading.Event())
    listening = ListenOptions("127.0.0.1", 0, folder.server_certificate, folder.server_key)
    with serving(nothing, listening, renewal.shown_by) as port:
        assert "expired" in (shaken(port, folder.authority_certificate) or "")
        renewal.look()
        assert shaken(port, folder.authority_certificate) is None
        shown = folder.server_certificate.read_bytes()
        renewal.look()
    assert folder.server_certificate.read_bytes() == shown
