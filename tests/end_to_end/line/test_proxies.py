"""Behind a proxy a volunteer enrols, asks and answers; the proxy sees bytes of TLS alone."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from nomoat.aggregation.errors import Unreachable
from nomoat.client.connection import coordinator_api, proxies
from nomoat.client.connection.https import call, one_connection


@dataclass
class ConnectProxy:
    """A proxy that wants a password: what it was asked, and every byte that came through."""

    listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))
    asked: list[bytes] = field(default_factory=list)
    seen: bytearray = field(default_factory=bytearray)

    def serve(self) -> None:
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._pass_on, args=(peer,), daemon=True).start()

    def _pass_on(self, peer: socket.socket) -> None:
        with contextlib.suppress(OSError), peer:
            head = b""
            while b"\r\n\r\n" not in head:
                head += peer.recv(1)
            self.asked.append(head)
            if b"Basic YWRhOnA=" not in head:
                peer.sendall(b"HTTP/1.1 407 Who are you?\r\n\r\n")
                return
            host, _, port = head.split(b" ")[1].decode().rpartition(":")
            with socket.create_connection((host, int(port))) as there:
                peer.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                back = threading.Thread(target=self._copy, args=(there, peer), daemon=True)
                back.start()
                self._copy(peer, there)
                back.join(5)

    def _copy(self, source: socket.socket, to: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self.seen += data
                to.sendall(data)
            to.shutdown(socket.SHUT_WR)


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[ConnectProxy]:
    """A proxy that everything goes through, although the coordinator is on this machine."""
    made = ConnectProxy()
    threading.Thread(target=made.serve, daemon=True).start()
    port = made.listener.getsockname()[1]
    monkeypatch.setattr(proxies, "is_this_machine", lambda _host: False)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("https_proxy", f"http://ada:p@127.0.0.1:{port}")
    yield made
    made.listener.close()


def test_a_volunteer_behind_a_proxy_enrols_and_answers(
    town: Any, proxy: ConnectProxy, people: Any, read: Any
) -> None:
    (person,) = people(1)  # through it, too
    asked = len(proxy.asked)
    assert asked > 0
    person.serve()
    ids = town.ask("across", [person.name], body=bytes(70 << 10))
    assert [read(reply) for reply in town.replies(ids, 1)] == ["re: across"]
    assert len(proxy.asked) > asked
    assert all(head.startswith(b"CONNECT localhost:") for head in proxy.asked)
    assert b"across" not in proxy.seen
    assert b"HTTP/1.1" not in proxy.seen


def test_a_proxy_that_refuses_is_named_in_one_line(
    town: Any, proxy: ConnectProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = proxy.listener.getsockname()[1]
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
    with pytest.raises(Unreachable, match=f"through the proxy 127.0.0.1:{port}.*407") as refusal:
        call(town.endpoint(), "GET", "/community")
    assert "\n" not in str(refusal.value)


def test_several_calls_share_one_connection(town: Any, proxy: ConnectProxy) -> None:
    public = town.folder.key().public
    with one_connection():
        for _ in range(3):
            coordinator_api.look(town.endpoint(), public, int(time.time()))
    assert len(proxy.asked) == 1
