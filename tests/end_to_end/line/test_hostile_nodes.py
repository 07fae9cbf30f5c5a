"""What an authenticated but hostile node, or a stranger, cannot do at the coordinator's port."""

from __future__ import annotations

import http.client
import random
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from flwr.app import Message
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
    RegisterNodeFleetRequest,
)
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, ObjectTree
from flwr.supernode.fleet_http_client import FleetHttpClient

from nomoat.aggregation.errors import Refused, RemoteProtocolError, Unreachable
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.client.connection import bounded_transport
from nomoat.client.connection.coordinator_api import CoordinatorClient
from nomoat.client.connection.flower_client import FlowerClient, UnknownNode
from nomoat.client.connection.https import tls_context


def post(town: Any, path: str, body: bytes, headers: dict[str, str]) -> int:
    connection = http.client.HTTPSConnection(
        "localhost", town.port, timeout=60, context=tls_context(town.endpoint())
    )
    connection.request("POST", path, body, headers)
    status = connection.getresponse().status
    connection.close()
    return status


@pytest.mark.parametrize(
    "path",
    ["control/start-run", "control/list-nodes", "control/register-node", "runtime/get-nodes"],
)
def test_flowers_other_interfaces_do_not_exist(town: Any, path: str) -> None:
    assert post(town, f"/v1/{path}", b"", {"content-type": "application/x-protobuf"}) == 404


def test_a_stranger_can_neither_register_nor_activate(town: Any) -> None:
    client = FleetHttpClient(f"https://localhost:{town.port}", verify=tls_context(town.endpoint()))
    with pytest.raises(httpx.HTTPStatusError, match="404"):
        client.RegisterNode(RegisterNodeFleetRequest(public_key=b"x"))
    with pytest.raises(httpx.HTTPStatusError, match="401"):
        client.ActivateNode(ActivateNodeRequest(public_key=b"x", heartbeat_interval=30))
    client.close()


def test_a_body_over_the_cap_is_refused_before_it_is_read(town: Any) -> None:
    headers = {"content-type": "application/x-protobuf", "content-length": str(1 << 40)}
    assert post(town, "/v1/fleet/push-object", b"", headers) == 413  # and nothing of it was sent


def test_a_node_cannot_pull_with_anothers_node_id(town: Any, people: Any) -> None:
    one, other = people(2)
    mine, theirs = FlowerClient(one.line()), FlowerClient(other.line())
    mine.activate()
    node = theirs.activate()
    with pytest.raises(UnknownNode):
        mine.ask(mine._fleet.PullMessages, PullMessagesRequest(node=node))


@pytest.mark.parametrize("where", ["head", "object"])
def test_a_node_cannot_reply_in_anothers_name(
    town: Any, people: Any, make_packet: Any, where: str
) -> None:
    """`head`: the reply's metadata name the other; `object`: only what is uploaded does."""
    thief, victim = people(2)
    theft, honest = FlowerClient(thief.line()), FlowerClient(victim.line())
    node, victim_node = theft.activate(), honest.activate()
    ids = town.ask("to both", [thief.name, victim.name])
    job, stolen = theft.receive(node), honest.receive(victim_node)
    assert job is not None
    assert stolen is not None
    asked = job if where == "object" else stolen
    message = theft.fetch(node, asked, time.monotonic() + 5)
    reply = Message(make_packet("mine"), reply_to=message)
    if where == "head":
        with pytest.raises(httpx.HTTPStatusError, match="400"):
            theft.send(node, reply)
        return
    lie = Message(make_packet("mine"), reply_to=honest.fetch(victim_node, stolen, 1e12))
    push_as(theft, node, reply, lie)
    (error,) = town.replies(ids, 1)
    assert error.has_error()
    assert error.metadata.reply_to_message_id == job.tree.object_id  # the thief's own, not theirs


def push_as(client: FlowerClient, node: Any, head: Message, lie: Message) -> None:
    """Push `head`'s metadata with the objects of `lie`."""
    lie_id = lie.object_id
    send, wires_ask = PushMessagesRequest, client.ask

    def ask(method: Any, request: Any) -> Any:
        if isinstance(request, send):
            metadata = request.messages_list[0].metadata
            metadata.reply_to_message_id = head.metadata.reply_to_message_id
            metadata.src_node_id = head.metadata.src_node_id
            metadata.message_id = lie_id
        return wires_ask(method, request)

    client.ask = ask  # type: ignore[method-assign]
    client.send(node, lie)


def test_a_reply_of_too_many_objects_is_refused(town: Any, people: Any, make_packet: Any) -> None:
    (person,) = people(1)
    client = FlowerClient(person.line())
    node = client.activate()
    town.ask("x", [person.name])
    job = client.receive(node)
    assert job is not None
    reply = Message(make_packet("x"), reply_to=client.fetch(node, job, time.monotonic() + 5))
    tree = ObjectTree(object_id=reply.object_id)
    tree.children.extend(ObjectTree(object_id=f"{i:064x}") for i in range(100))
    from flwr.app.message import remove_content_from_message
    from flwr.common.serde import message_to_proto

    reply.metadata.__dict__["_message_id"] = reply.object_id
    head = message_to_proto(remove_content_from_message(reply))
    request = PushMessagesRequest(node=node, messages_list=[head], message_object_trees=[tree])
    with pytest.raises(httpx.HTTPStatusError, match="400"):
        client.ask(client._fleet.PushMessages, request)


def test_a_volunteer_cuts_off_an_answer_that_does_not_end(
    town: Any, people: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (person,) = people(1)
    monkeypatch.setattr(bounded_transport, "ANSWER_BYTES", 4)
    with pytest.raises(Unreachable, match="too long"):
        FlowerClient(person.line()).activate()


@pytest.mark.parametrize("name", ["{canary}", "../../canary", "../canary"])
def test_a_confirmation_deletes_no_file(town: Any, people: Any, name: str) -> None:
    canary = town.root / "canary"
    canary.write_text("still here")
    (person,) = people(1)
    client = FlowerClient(person.line())
    node = client.activate()
    request = ConfirmMessageReceivedRequest(
        node=node, run_id=town.state.run_id, message_object_id=name.format(canary=canary)
    )
    with pytest.raises(httpx.HTTPStatusError, match="400"):
        client.ask(client._fleet.ConfirmMessageReceived, request)
    assert canary.read_text() == "still here"


def test_a_node_cannot_confirm_what_another_has_not_fetched(town: Any, people: Any) -> None:
    thief, victim = people(2)
    theft, honest = FlowerClient(thief.line()), FlowerClient(victim.line())
    node, victim_node = theft.activate(), honest.activate()
    (asked,) = town.ask("for the victim", [victim.name])
    request = ConfirmMessageReceivedRequest(
        node=node, run_id=town.state.run_id, message_object_id=asked
    )
    with pytest.raises(httpx.HTTPStatusError, match="400"):
        theft.ask(theft._fleet.ConfirmMessageReceived, request)
    job = honest.receive(victim_node)
    assert job is not None
    assert honest.fetch(victim_node, job, time.monotonic() + 5).has_content()


def test_requests_without_their_bodies_hold_up_nobody(town: Any, people: Any, read: Any) -> None:
    (person,) = people(1)
    head = (
        b"POST /v1/fleet/pull-object HTTP/1.1\r\nhost: x\r\n"
        b"content-type: application/x-protobuf\r\ncontent-length: 10\r\n\r\n"
    )
    context = tls_context(town.endpoint())
    with ExitStack() as stack:
        for _ in range(20):
            plain = socket.create_connection(("localhost", town.port))
            line = stack.enter_context(context.wrap_socket(plain, server_hostname="localhost"))
            line.sendall(head)
        person.serve()
        (reply,) = town.replies(town.ask("hello", [person.name]), 1, seconds=8)
    assert read(reply) == "re: hello"


def test_a_head_that_does_not_end_is_cut_off(town: Any) -> None:
    plain = socket.create_connection(("localhost", town.port))
    context = tls_context(town.endpoint())
    with context.wrap_socket(plain, server_hostname="localhost") as line:
        line.settimeout(20)
        line.sendall(b"GET /community HTTP/1.1\r\n")

        def endless() -> None:
            for number in range(100_000):
                line.sendall(b"x-%d: %s\r\n" % (number, b"y" * 200))

        with pytest.raises(OSError):  # noqa: PT011 - whichever way a cut connection shows
            endless()


@pytest.mark.parametrize("after", ["9223372036854775808", "-1", "x", "1e3", "²", "1" * 400])
def test_an_odd_number_is_a_bad_request(town: Any, people: Any, after: str) -> None:
    (person,) = people(1)
    for path in ("roster", "receipts", "versions"):
        with pytest.raises(RemoteProtocolError, match="number"):
            person.coordinator.get(f"/{path}?after={quote(after)}", int(time.time()), 1 << 20)


def test_a_key_that_never_enrolled_cannot_read_the_roster(town: Any, people: Any) -> None:
    (person,) = people(1)
    stranger = CoordinatorClient(
        town.endpoint(), SigningKey(b"\x63" * 32), person.coordinator.community
    )
    with pytest.raises(Refused, match="members"):
        stranger.get("/roster?after=0", int(time.time()), 1 << 20)


def kept(town: Any) -> int:
    """Bytes that lie in the coordinator's object store, in memory and on disk."""
    files = sum(file.stat().st_size for file in (town.folder.flower / "objects").iterdir())
    return files + sum(len(entry.content) for entry in town.state.object_store.store.values())


@contextmanager
def named_as(reply_id: str, client: FlowerClient) -> Iterator[None]:
    """Push every reply under one id, with the objects of its own."""
    asks = client.ask

    def ask(method: Any, request: Any) -> Any:
        if isinstance(request, PushMessagesRequest):
            request.messages_list[0].metadata.message_id = reply_id
            request.message_object_trees[0].object_id = reply_id
        answer = asks(method, request)
        if isinstance(request, PushMessagesRequest) and reply_id in answer.objects_to_push:
            answer.objects_to_push.remove(reply_id)  # there is no such object
        return answer

    client.ask = ask  # type: ignore[method-assign]
    yield
    client.ask = asks  # type: ignore[method-assign]


def test_one_reply_sent_again_and_again_with_other_objects_takes_the_room_of_one(
    town: Any, people: Any, make_packet: Any
) -> None:
    """Each time with another tree under the same name, and each time with all that it names."""
    town.state.most_reply_bytes = 6 << 20
    (person,) = people(1)
    client = FlowerClient(person.line())
    node = client.activate()
    before = len(town.state.object_store), kept(town)
    ids = town.ask("x", [person.name])
    job = client.receive(node)
    assert job is not None
    asked = client.fetch(node, job, time.monotonic() + 5)
    empty, most = kept(town), 0
    for number in range(4):
        noise = random.Random(number).randbytes(5 << 20)
        reply = Message(make_packet("x", noise), reply_to=asked)
        with nullcontext() if number % 2 else named_as("f" * 64, client):
            client.send(node, reply)
        most = max(most, kept(town))
    assert most > 5 << 20  # the first was taken
    assert most - empty <= town.state.most_reply_bytes
    town.fleet_grid.withdraw(ids)
    assert (len(town.state.object_store), kept(town)) == before  # nothing of it is left


def test_what_came_of_a_reply_that_is_too_large_is_gone_with_its_round(
    town: Any, people: Any, make_packet: Any
) -> None:
    town.state.most_reply_bytes = 5 << 20
    (person,) = people(1)
    client = FlowerClient(person.line())
    node = client.activate()
    before = len(town.state.object_store), kept(town)
    ids = town.ask("x", [person.name])
    job = client.receive(node)
    assert job is not None
    noise = random.Random(0).randbytes(9 << 20)
    reply = Message(make_packet("x", noise), reply_to=client.fetch(node, job, 1e12))
    client.send(node, reply)
    assert before[1] < kept(town) <= before[1] + (5 << 20)  # parts race to be in time
    town.fleet_grid.withdraw(ids)
    assert (len(town.state.object_store), kept(town)) == before  # nothing of it is left
