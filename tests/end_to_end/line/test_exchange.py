"""Messages go out and come back over the real fleet protocol, whoever breaks in between."""

from __future__ import annotations

import datetime
import logging
import os
import threading
import time
from dataclasses import replace
from typing import Any

import httpx
import pytest
from flwr.app import ConfigRecord, Message
from flwr.proto.fleet_pb2 import DeactivateNodeRequest, PullMessagesRequest
from flwr.proto.message_pb2 import PushObjectRequest
from flwr.supercore.date import now
from flwr.supernode import node_auth_http_interceptor

from nomoat.aggregation.errors import NomoatError, Refused, Unreachable
from nomoat.aggregation.protocol.community.spoken import OURS
from nomoat.aggregation.protocol.roster import Event
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.client.connection import flower_client, message_loop
from nomoat.client.connection.flower_client import FlowerClient, UnknownNode
from nomoat.flower.replies import REFUSED
from nomoat.server.fleet.sealed_grid import CommunitySigner, SealedGrid
from nomoat.server.port import fleet_calls
from nomoat.server.port.carried_objects import CarriedObjects


def test_messages_and_large_bodies_come_back_whole(town: Any, people: Any, read: Any) -> None:
    both = people(2)
    for person in both:
        person.serve()
    body = bytes(9 << 20)  # three parts, two of them equal: one object in Flower's store
    ids = town.ask("hello", [p.name for p in both], body=body)
    replies = town.replies(ids, 2)
    for reply in replies:
        records = reply.content.config_records
        assert read(reply) == "re: hello"
        assert b"".join(records[n]["bytes"] for n in sorted(records) if n != "head") == body
    assert town.state.num_message_ins() == town.state.num_message_res() == 0
    assert len(town.state.object_store) == 0  # nothing piles up


def test_a_waiting_volunteer_hears_at_once_and_asks_rarely(
    town: Any, people: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (person,) = people(1)
    person.serve()
    town.wait_for(person.name)
    pulls, woken = [], []
    waiting = town.state.pulls.wait

    async def counted(node: int, pull: Any, seconds: float) -> bool:
        pulls.append(seconds)
        newest = await waiting(node, pull, seconds)
        woken.append(pull.event.is_set())
        return bool(newest)

    monkeypatch.setattr(town.state.pulls, "wait", counted)
    time.sleep(0.7)
    assert len(pulls) <= 2
    town.replies(town.ask("now", [person.name]), 1)
    assert any(woken)  # a poll that nobody wakes is held until its time is over


def test_a_node_that_died_is_replaced_at_once_and_given_its_message_again(
    town: Any, people: Any, read: Any
) -> None:
    (person,) = people(1)
    first = FlowerClient(person.line())
    node = first.activate()
    ids = town.ask("train", [person.name])
    job = first.receive(node)
    assert job is not None
    # kill -9: no word of goodbye; Flower alone would refuse the key for 60 s and lose the message
    person.serve()
    assert [read(reply) for reply in town.replies(ids, 1, seconds=5)] == ["re: train"]


def test_a_request_that_a_killed_process_left_open_takes_no_message(
    town: Any, people: Any, read: Any
) -> None:
    (person,) = people(1)
    killed = FlowerClient(person.line())
    node = killed.activate()
    taken: list[Any] = []
    held = threading.Thread(target=lambda: taken.append(quietly(killed.receive, node)))
    held.start()
    town.wait_held(node.node_id)
    person.serve()
    person.log.wait("connected")
    for number in range(4):  # whoever is woken first
        ids = town.ask(f"message {number}", [person.name])
        assert read(town.replies(ids, 1)[0]) == f"re: message {number}"
    held.join(60)
    assert taken == [None]


def test_two_volunteers_with_the_same_keys_are_told_so_in_one_line(town: Any, people: Any) -> None:
    (person,) = people(1)
    copied = FlowerClient(person.line())
    node = copied.activate()
    problems: list[Exception] = []

    def poll() -> None:
        try:
            copied.receive(node)
        except Exception as problem:  # noqa: BLE001 - looked at below
            problems.append(problem)

    held = threading.Thread(target=poll)
    held.start()
    town.wait_held(node.node_id)
    person.serve()
    held.join(60)
    (problem,) = problems
    assert isinstance(problem, NomoatError)
    assert "another with these keys runs: end it" in str(problem)
    assert "http" not in str(problem)


def test_a_message_that_was_lost_on_its_way_is_offered_again(
    town: Any, people: Any, read: Any
) -> None:
    (person,) = people(1)
    lossy = FlowerClient(person.line())
    node = lossy.activate()
    ids = town.ask("twice", [person.name])
    answer = lossy.ask(lossy._fleet.PullMessages, PullMessagesRequest(node=node))
    assert answer.messages_list  # handed out, but it never got here
    job = lossy.receive(node)
    assert job is not None
    lossy.send(
        node, Message(lossy.fetch(node, job, time.monotonic() + 5).content, reply_to=job.head)
    )
    assert town.replies(ids, 1)
    lossy.ask(lossy._fleet.DeactivateNode, DeactivateNodeRequest(node_id=node.node_id))


def test_half_an_answer_of_a_killed_process_does_not_stand_for_the_whole(
    town: Any, people: Any, read: Any, make_packet: Any
) -> None:
    (person,) = people(1)
    killed = FlowerClient(person.line())
    node = killed.activate()
    ids = town.ask("report", [person.name])
    job = killed.receive(node)
    assert job is not None
    whole = make_packet("half", bytes(100 << 10))  # small objects travel with the head
    reply = Message(whole, reply_to=killed.fetch(node, job, time.monotonic() + 5))
    ask = killed.ask

    def dies_uploading(method: Any, request: Any) -> Any:
        if isinstance(request, PushObjectRequest):
            raise KeyboardInterrupt
        return ask(method, request)

    killed.ask = dies_uploading  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        killed.send(node, reply)
    person.serve()
    assert [read(whole) for whole in town.replies(ids, 1)] == ["re: report"]


def test_a_small_message_takes_one_request_each_way(
    town: Any, people: Any, read: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (person,) = people(1)
    calls, ask = [], FlowerClient.ask

    def counted(client: FlowerClient, method: Any, request: Any) -> Any:
        answer = ask(client, method, request)
        calls.append(type(request).__name__)
        return answer

    monkeypatch.setattr(FlowerClient, "ask", counted)
    person.serve()
    ids = town.ask("hello", [person.name])
    assert [read(reply) for reply in town.replies(ids, 1)] == ["re: hello"]
    person.log.wait("answered", False)  # it knows that its answer was wanted
    assert set(calls) == {"ActivateNodeRequest", "PullMessagesRequest", "PushMessagesRequest"}


def test_an_adapter_that_came_to_be_measured_is_not_fetched_again_to_be_trained(
    town: Any, people: Any, read: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (person,) = people(1)
    fetched, asked_for = [], FlowerClient._asked_for

    def counted(client: FlowerClient, node: Any, incoming: Any, each: str, until: float) -> bytes:
        fetched.append(each)
        return asked_for(client, node, incoming, each, until)

    monkeypatch.setattr(FlowerClient, "_asked_for", counted)
    person.serve()
    adapter, other = bytes(100_000), bytes([1]) * 100_000
    for word, body, in_all in (
        ("measure", adapter, 1),
        ("hello", b"", 1),
        ("train", adapter, 1),
        ("measure", other, 2),
        ("train", adapter, 3),
    ):
        (reply,) = town.replies(town.ask(word, [person.name], body=body), 1)
        records = reply.content.config_records
        assert b"".join(records[n]["bytes"] for n in sorted(records) if n != "head") == body
        assert len(fetched) == in_all


@pytest.mark.parametrize("older", ["coordinator", "volunteer"])
def test_a_side_of_an_earlier_release_fetches_and_sends_each_object(
    town: Any, people: Any, read: Any, monkeypatch: pytest.MonkeyPatch, older: str
) -> None:
    (person,) = people(1)
    if older == "coordinator":
        monkeypatch.setattr(CarriedObjects, "give", lambda _self, _answer: None)
        monkeypatch.setattr(CarriedObjects, "take", lambda _self, _call, _answer: None)
    else:
        monkeypatch.setattr(flower_client, "carried", lambda _call: {})
        monkeypatch.setattr(flower_client, "carry", lambda _call, _contents: None)
    person.serve()
    ids = town.ask("hello", [person.name], body=bytes(100 << 10))
    assert [read(reply) for reply in town.replies(ids, 1)] == ["re: hello"]


def test_a_coordinator_that_was_killed_is_found_again(town: Any, people: Any, read: Any) -> None:
    (person,) = people(1)
    person.serve()
    town.ask("lost with the run", [person.name], group="1")
    town.down()
    person.log.wait("lost")
    town.up()
    ids = town.ask("after", [person.name], group="2")
    assert read(town.replies(ids, 1)[0]) == "re: after"


def test_a_coordinator_killed_during_a_training_does_not_end_the_line(
    town: Any, people: Any, read: Any
) -> None:
    (person,) = people(1)
    go = threading.Event()

    def slow(message: Message, context: Any) -> Message:
        if read(message) == "slow":
            go.wait(60)
        return Message(message.content, reply_to=message)

    person.serve(slow)
    town.ask("slow", [person.name])
    person.log.wait("working")
    town.down()
    go.set()
    person.log.wait("unsent")  # and its owner is told that it waits
    town.up()
    ids = town.ask("next", [person.name])
    assert read(town.replies(ids, 1)[0]) == "next"


def test_a_long_training_blocks_neither_polls_nor_heartbeats(
    town: Any, people: Any, read: Any
) -> None:
    (person,) = people(1)
    go = threading.Event()

    def slow(message: Message, context: Any) -> Message:
        go.wait(60)
        return Message(message.content, reply_to=message)

    person.serve(slow)
    ids = town.ask("one", [person.name])
    person.log.wait("working")
    ids += town.ask("two", [person.name])
    until = time.monotonic() + 15
    while town.state.has_mail(town.wait_for(person.name)[person.name]):  # taken although it is busy
        assert time.monotonic() < until
        time.sleep(0.01)
    go.set()
    assert sorted(read(reply) for reply in town.replies(ids, 2)) == ["one", "two"]


def test_a_waiting_volunteer_is_online_by_its_pulls_alone(
    town: Any, people: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    beats: list[Any] = []
    monkeypatch.setattr(message_loop, "BEAT_S", 0.05)
    monkeypatch.setattr(message_loop, "LOOK_S", 0.02)
    monkeypatch.setattr(FlowerClient, "beat", lambda _self, node: beats.append(node))
    (person,) = people(1)
    person.serve()
    node = town.wait_for(person.name)[person.name]
    town.replies(town.ask("first", [person.name]), 1)  # the answer to a pull has said so
    beats.clear()
    town.state.nodes[node].online_until = time.time() + 5
    town.wait_held(node)
    town.replies(town.ask("second", [person.name]), 1)
    assert beats == []
    assert town.state.nodes[node].online_until > time.time() + 30


def test_a_coordinator_that_holds_no_pulls_for_long_gets_heartbeats(
    town: Any, people: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    beaten = threading.Event()
    monkeypatch.setattr(fleet_calls, "HELD", {})
    monkeypatch.setattr(message_loop, "BEAT_S", 0.05)
    monkeypatch.setattr(message_loop, "LOOK_S", 0.02)
    monkeypatch.setattr(FlowerClient, "beat", lambda _self, _node: beaten.set())
    (person,) = people(1)
    person.serve()
    town.replies(town.ask("hello", [person.name]), 1)
    beaten.clear()
    assert beaten.wait(60)


def test_a_volunteer_of_an_earlier_release_that_only_polls_gets_its_messages(
    town: Any, people: Any
) -> None:
    (person,) = people(1)
    client = FlowerClient(person.line())
    node = client.activate()
    client._fleet._client.event_hooks = {}
    client._fleet._client.headers.pop("x-nomoat-carry")
    assert client.receive(node) is None  # at once
    ids = town.ask("hello", [person.name])
    job = client.receive(node)
    assert job is not None
    asked = client.fetch(node, job, time.monotonic() + 5)
    client.send(node, Message(asked.content, reply_to=asked))
    (reply,) = town.replies(ids, 1)
    assert reply.has_error()  # it is not sealed
    client.deactivate(node)


def test_a_ban_counts_from_the_next_message_on(town: Any, people: Any) -> None:
    banned, other = people(2)
    banned.serve()
    other.serve()
    town.wait_for(banned.name, other.name)
    town.registrar.order(banned.name, Event.BAN, "junk", int(time.time()))
    assert set(town.fleet_grid.online()) == {other.name}
    node = next(n.node_id for n in town.state.get_node_info() if n.owner_name == banned.name)
    town.state.pulls.ring([node])
    banned.thread.join(60)
    assert isinstance(banned.refused, Refused)
    assert other.refused is None


def test_who_pauses_is_here_but_not_to_be_asked_until_it_resumes(
    town: Any, people: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so at once, although its last request is held open."""
    monkeypatch.setattr(message_loop, "LOOK_S", 0.02)
    (person,) = people(1)
    paused, line = threading.Event(), person.line()
    monkeypatch.setattr(person, "line", lambda: replace(line, paused=paused.is_set))
    person.serve()
    node = town.wait_for(person.name)[person.name]
    assert person.name in town.fleet_grid.willing()
    for order, willing in ((paused.set, False), (paused.clear, True)):
        town.wait_held(node)
        order()
        until = time.monotonic() + 10
        while (person.name in town.fleet_grid.willing()) != willing:
            assert time.monotonic() < until
            time.sleep(0.01)
        assert person.name in town.fleet_grid.online()


def test_a_stopped_volunteer_signs_off_and_its_answer_still_counts(
    town: Any, people: Any, read: Any
) -> None:
    (person,) = people(1)
    person.serve()
    ids = town.ask("last", [person.name])
    person.log.wait("answered", False)
    person.leave()
    assert person.name not in town.fleet_grid.online()
    assert read(town.replies(ids, 1)[0]) == "re: last"


def test_a_volunteer_gone_for_longer_than_patience_is_given_up(
    town: Any, people: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (person,) = people(1)
    client = FlowerClient(person.line())
    node = client.activate()
    ids = town.ask("anybody?", [person.name])
    client.deactivate(node)
    now = time.time()
    monkeypatch.setattr(town.fleet_grid, "_clock", lambda: now + town.patience_s - 5)
    assert list(town.grid.pull_messages(ids)) == []
    monkeypatch.setattr(town.fleet_grid, "_clock", lambda: now + town.patience_s + 5)
    (reply,) = town.grid.pull_messages(ids)
    assert reply.has_error()


def test_whoever_froze_is_not_waited_for_only_to_measure(
    town: Any, people: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (person,) = people(1)
    client = FlowerClient(person.line())
    node = client.activate()
    ids = town.ask("how good is it?", [person.name], kind="evaluate.heldout")
    assert list(town.grid.pull_messages(ids)) == []  # it is online
    client.deactivate(node)  # or its heartbeats have lapsed, which comes to the same
    now = time.time()
    monkeypatch.setattr(town.fleet_grid, "_clock", lambda: now + 2)
    (reply,) = town.grid.pull_messages(ids)
    assert reply.has_error()


def test_what_was_not_answered_is_taken_back_when_the_next_round_begins(
    town: Any, people: Any, read: Any
) -> None:
    (person,) = people(1)
    go = threading.Event()

    def slow(message: Message, context: Any) -> Message:
        if read(message) == "round 1":
            go.wait(60)
        return Message(message.content, reply_to=message)

    person.serve(slow)
    town.ask("round 1", [person.name], group="1")
    person.log.wait("working")
    ids = town.ask("round 2", [person.name], group="2")
    go.set()
    assert read(town.replies(ids, 1)[0]) == "round 2"
    assert ("answered", True) in person.log.events  # it was told that it came too late


def test_an_error_tells_the_coordinator_a_class_name_and_nothing_else(
    town: Any, people: Any
) -> None:
    (person,) = people(1)

    def broken(message: Message, context: Any) -> Message:
        raise FileNotFoundError("/home/ada/secret.jsonl")

    person.serve(broken)
    (reply,) = town.replies(town.ask("x", [person.name]), 1)
    assert reply.error.reason == "FileNotFoundError"


def test_a_volunteer_that_cannot_log_says_so_and_goes_on_when_it_can(
    town: Any, people: Any, read: Any
) -> None:
    (person,) = people(1)
    disk_full, asked = threading.Event(), []

    def record(message: Message, reply: Message) -> None:
        asked.append(read(message))
        if disk_full.is_set():
            raise NomoatError("cannot use /home/ada/sent.log: No space left on device")

    disk_full.set()
    person.serve(record=record)
    (reply,) = town.replies(town.ask("before", [person.name]), 1)
    assert not reply.has_content()
    assert reply.error.reason == "NomoatError"  # no path, no data
    assert ("withheld", "train.local") in [event[:2] for event in person.log.events]
    disk_full.clear()
    (reply,) = town.replies(town.ask("after", [person.name]), 1)
    assert read(reply) == "re: after"
    assert asked == ["before", "after"]  # what was withheld is not offered again


@pytest.mark.parametrize("fault", ["unsealed", "tampered", "replayed"])
def test_a_reply_whose_seal_does_not_hold_is_refused_by_name(
    town: Any, people: Any, make_packet: Any, caplog: Any, fault: str
) -> None:
    (person,) = people(1)
    kept: list[Any] = []

    def honest(message: Message, context: Any) -> Message:
        return Message(make_packet("honest", os.urandom(4)), reply_to=message)

    good = person.sealed(honest)

    def tampering(message: Message, context: Any) -> Message:
        reply = good(message, context)
        if fault == "unsealed":
            del reply.content["head"]["seal"]
        elif fault == "tampered":
            other = make_packet("other").config_records["head"]["bytes"]
            reply.content["head"] = ConfigRecord({**reply.content["head"], "bytes": other})
        elif kept:
            for name, record in kept[0].items():
                reply.content[name] = record
        kept.append(dict(reply.content.config_records))
        return reply

    person.serve(tampering, seal=False)
    with caplog.at_level(logging.WARNING):
        ids = town.ask("one", [person.name])
        (reply,) = town.replies(ids, 1)
        if fault == "replayed":
            assert not reply.has_error()
            (reply,) = town.replies(town.ask("two", [person.name]), 1)
    assert reply.has_error()
    assert reply.error.code == REFUSED
    assert person.name in caplog.text


@pytest.mark.parametrize("by", ["nobody", "a stranger"])
def test_a_request_its_community_did_not_seal_is_not_answered(
    town: Any, people: Any, make_packet: Any, by: str
) -> None:
    (person,) = people(1)
    person.serve()
    node = town.wait_for(person.name)[person.name]
    request = Message(make_packet("do this"), node, "train.local", group_id="1")
    stranger = CommunitySigner(SigningKey(b"\x55" * 32), b"\xab" * 32, lambda: os.urandom(16))
    grid = town.fleet_grid if by == "nobody" else SealedGrid(town.fleet_grid, stranger, town._who)
    ids = list(grid.push_messages([request]))
    got: list[Any] = []
    until = time.monotonic() + 30
    while not got and time.monotonic() < until:
        got = list(town.fleet_grid.pull_messages(ids))
    assert got[0].error.reason == "RemoteProtocolError"


def test_a_clock_that_is_wrong_is_named_as_the_reason(
    town: Any, people: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (person,) = people(1)
    ahead = datetime.timedelta(seconds=1000)
    monkeypatch.setattr(node_auth_http_interceptor, "now", lambda: now() + ahead)
    client = FlowerClient(replace(person.line(), clock=lambda: time.time() + 1000))
    with pytest.raises(
        UnknownNode, match=r"clock is (99\d|1[01]\d\d) s ahead of the coordinator's"
    ):
        client.activate()


def quietly(receive: Any, node: Any) -> Any:
    """What `receive` gets; None if the coordinator refuses to give this one anything."""
    try:
        return receive(node)
    except (httpx.HTTPStatusError, Unreachable):
        return None


def test_a_coordinator_that_slept_goes_on_in_its_run(town: Any, people: Any, read: Any) -> None:
    """Flower ends a task that was silent for a minute, and then nothing can be sent in its run."""
    (person,) = people(1)
    person.serve()
    town.replies(town.ask("before", [person.name]), 1)
    for token in town.state.task_token_store.values():
        token.active_until = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
    town.state.get_tasks()  # Flower looks for lapsed tasks now and then
    (reply,) = town.replies(town.ask("after", [person.name]), 1)
    assert read(reply) == "re: after"


def test_the_coordinator_knows_what_software_runs_where_its_owner_shows_it(
    town: Any, people: Any, read: Any
) -> None:
    shown, silent = people(2)
    hostile = "nomoat 1, \x1b[31mred " + 200 * "x"
    line = shown.line
    shown.line = lambda: replace(line(), software=hostile.replace("\x1b", "?"))
    for person in (shown, silent):
        person.serve()
    town.replies(town.ask("hello", [shown.name, silent.name]), 2)
    software = town.fleet_grid.software()
    assert software[shown.name].startswith("nomoat 1, ?[31mred xxx")
    assert len(software[shown.name]) == 80
    assert silent.name not in software
    spoken = town.fleet_grid.spoken()
    assert [spoken[person.name] for person in (shown, silent)] == [OURS.header, OURS.header]
