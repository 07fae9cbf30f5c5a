"""A call through a port process is the call; what such a process loses, nobody misses."""

from __future__ import annotations

import http.client
import logging
import os
import signal
import ssl
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from nomoat.aggregation.errors import Refused
from nomoat.aggregation.protocol.roster import Event
from nomoat.client.connection.flower_client import FlowerClient, Node, UnknownNode
from nomoat.client.connection.https import tls_context
from nomoat.server.porters.round_side import PorterLink

PORT_PROCESSES = 2


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that reach the round process from now on."""
    paths: list[str] = []
    ask = PorterLink._ask

    def noted(self: PorterLink, frame: Any) -> None:
        paths.append(frame.path)
        ask(self, frame)

    monkeypatch.setattr(PorterLink, "_ask", noted)
    return paths


def until(done: Callable[[], bool], seconds: float = 20.0) -> None:
    last = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < last
        time.sleep(0.01)


def test_messages_and_large_bodies_come_back_whole(
    town: Any, people: Any, read: Any, asked: list[str]
) -> None:
    both = people(2)
    for person in both:
        person.serve()
    body = os.urandom(6 << 20)  # two parts
    for reply in town.replies(town.ask("hello", [p.name for p in both], body=body), 2):
        records = reply.content.config_records
        assert read(reply) == "re: hello"
        assert b"".join(records[n]["bytes"] for n in sorted(records) if n != "head") == body
    assert {"/v1/fleet/pull-object", "/v1/fleet/push-messages"} <= set(asked)


def test_a_killed_porter_costs_nothing_but_a_line(
    town: Any, people: Any, read: Any, caplog: pytest.LogCaptureFixture
) -> None:
    people_ = people(2)
    for person in people_:
        person.serve()
    nodes = town.wait_for(*(person.name for person in people_))
    for node in nodes.values():
        town.wait_held(node)
    (porters,) = town.shown
    before = [process.pid for process in porters._processes]
    with caplog.at_level(logging.WARNING, "nomoat.server.porters.team"):
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        ids = town.ask("still there?", [person.name for person in people_])
        assert {read(reply) for reply in town.replies(ids, 2)} == {"re: still there?"}
        until(lambda: all(one.pid not in before for one in porters._processes))
    assert caplog.text.count("(SIGKILL); it is started again") == 2


def test_what_no_member_signed_never_reaches_the_round_process(
    town: Any, people: Any, asked: list[str]
) -> None:
    (person,) = people(1)
    asked.clear()
    heads = {"content-type": "application/x-protobuf"}
    for path, body, length, status in (
        ("/v1/fleet/push-object", b"junk" * 1000, 4000, 401),
        ("/v1/fleet/push-object", b"", 1 << 40, 413),
        ("/v1/control/start-run", b"", 0, 404),
    ):
        line = http.client.HTTPSConnection(
            "localhost", town.port, timeout=20, context=tls_context(town.endpoint())
        )
        line.request("POST", path, body, heads | {"content-length": str(length)})
        assert line.getresponse().status == status
        line.close()
    stranger = replace(person.line(), node_key=ec.generate_private_key(ec.SECP384R1()))
    with FlowerClient(stranger) as client, pytest.raises(UnknownNode):
        client.receive(Node(node_id=1))
    assert asked == []


def test_a_ban_counts_at_a_porter_at_once(town: Any, people: Any) -> None:
    banned, other = people(2)
    other.serve()
    with FlowerClient(banned.line()) as client:
        node = client.activate()
        client.beat(node)
        town.registrar.order(banned.name, Event.BAN, "junk", int(time.time()))
        with pytest.raises(UnknownNode):  # the very next call, whatever the porter knows
            client.beat(node)
        with pytest.raises(Refused):
            client.activate()
    town.wait_for(other.name)


def test_a_renewed_certificate_is_shown_by_every_porter(town: Any) -> None:
    def shown() -> str:
        address = ("localhost", town.port)
        return ssl.get_server_certificate(address, ca_certs=None)

    before = shown()
    town.renew()
    (porters,) = town.shown
    porters.load_cert_chain(town.folder.server_certificate, town.folder.server_key)
    until(lambda: all(shown() != before for _ in range(4)))
    assert tls_context(town.endpoint()).verify_mode is ssl.CERT_REQUIRED
