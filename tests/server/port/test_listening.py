"""A port is open where it was asked for, to both families where that is all of them."""

from __future__ import annotations

import datetime
import socket
import ssl
from pathlib import Path
from typing import Any

import psutil
import pytest

from nomoat.aggregation.errors import NomoatError
from nomoat.server.community import certificates
from nomoat.server.port import listening
from nomoat.server.port.listening import ListenOptions, bind, serving


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on this machine")
@pytest.mark.parametrize(
    ("host", "reached"),
    [("::", {"::1", "127.0.0.1"}), ("::1", {"::1"}), ("0.0.0.0", {"127.0.0.1"})],
)
def test_an_address_is_listened_on_in_the_families_it_stands_for(
    host: str, reached: set[str]
) -> None:
    with bind(host, 0) as listener:
        listener.listen()
        found = set()
        for peer in ("::1", "127.0.0.1"):
            try:
                socket.create_connection((peer, listener.getsockname()[1]), timeout=5).close()
                found.add(peer)
            except OSError:
                continue
    assert found == reached


def test_an_address_of_another_machine_is_one_line_that_names_host() -> None:
    with pytest.raises(NomoatError, match=r"cannot listen on .*192\.0\.2\.1.*--host"):
        bind("192.0.2.1", 0)


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    """An application that nobody asks anything."""


@pytest.fixture
def options(tmp_path: Path) -> ListenOptions:
    now = datetime.datetime.now(datetime.UTC)
    issued = certificates.make_server(certificates.make_authority("x", now), ["localhost"], now)
    (tmp_path / "c").write_bytes(issued.certificate)
    (tmp_path / "k").write_bytes(issued.key)
    return ListenOptions("127.0.0.1", 0, tmp_path / "c", tmp_path / "k")


def test_whoever_does_not_shake_hands_is_cut_off(
    options: ListenOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "HANDSHAKE_SECONDS", 0.1)
    with serving(nothing, options) as port:
        silent = socket.create_connection(("127.0.0.1", port), timeout=30)  # less than asyncio's
        with silent:
            assert silent.recv(1) == b""


def test_a_connection_that_has_not_shaken_hands_takes_little_memory(options: ListenOptions) -> None:
    count, process = 200, psutil.Process()
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    with serving(nothing, options) as port:
        before = process.memory_info().rss
        silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]
        last = socket.create_connection(("127.0.0.1", port), timeout=30)
        with trusting.wrap_socket(last):  # taken in after all the others
            grown = process.memory_info().rss - before
        for one in silent:
            one.close()
    assert grown < count * (128 << 10)
