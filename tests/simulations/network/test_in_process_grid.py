"""What works over the in-process grid works over Flower's wire: same bytes, same failures."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode

from nomoat.simulations.network.in_process_grid import InProcessGrid

Handler = Callable[[Message, Context], Message]
NAMES = ("ada", "bob", "cy")


class Answering(ClientApp):
    """A ClientApp that is one function."""

    def __init__(self, handler: Handler) -> None:
        super().__init__()
        self._handler = handler

    def __call__(self, message: Message, context: Context) -> Message:
        return self._handler(message, context)


def echo(message: Message, context: Context) -> Message:
    return Message(message.content, reply_to=message)


def named(message: Message, context: Context) -> Message:
    name = str(context.node_config["name"])
    return Message(RecordDict({"who": ConfigRecord({"name": name})}), reply_to=message)


def grid_of(handler: Handler, **options: object) -> contextlib.closing[InProcessGrid]:
    return contextlib.closing(InProcessGrid(Answering(handler), NAMES, 4, **options))  # type: ignore[arg-type]


def message(node: int, content: RecordDict | None = None, kind: str = "train.local") -> Message:
    return Message(content or RecordDict(), node, kind, group_id="1")


def in_order(replies: Iterable[Message]) -> list[Message]:
    """Replies in the order of their nodes: they come as they are ready."""
    return sorted(replies, key=lambda reply: reply.metadata.src_node_id)


def pull_all(grid: InProcessGrid, ids: list[str]) -> list[Message]:
    found: list[Message] = []
    deadline = time.monotonic() + 60
    while len(found) < len(ids) and time.monotonic() < deadline:
        found += grid.pull_messages(ids)
    return found


def test_what_arrives_is_a_copy_through_bytes_and_not_the_senders_object() -> None:
    received: list[Message] = []

    def vandal(arrived: Message, context: Context) -> Message:
        received.append(arrived)
        answer = Message(arrived.content, reply_to=arrived)
        arrived.content["config"]["bytes"] = b"overwritten"  # type: ignore[index]
        return answer

    values = np.arange(4, dtype=np.float32)
    sent = RecordDict({"config": ConfigRecord({"bytes": b"mine"}), "a": ArrayRecord([values])})
    with grid_of(vandal) as grid:
        outgoing = message(1, sent)
        (back,) = grid.send_and_receive([outgoing])
    assert received[0] is not outgoing
    assert received[0].content is not sent
    assert outgoing.content["config"]["bytes"] == b"mine"  # type: ignore[index]
    assert back.content["config"]["bytes"] == b"overwritten"  # type: ignore[index]
    assert back.content is not received[0].content
    (array,) = back.content["a"].to_numpy_ndarrays()  # type: ignore[union-attr]
    assert (array == values).all()
    assert array is not values


def test_every_message_is_served_by_its_own_volunteer_and_answers_find_their_question() -> None:
    with grid_of(named) as grid:
        nodes = {node.node_id: node.owner_name for node in grid.get_nodes()}
        assert sorted(nodes) == sorted(grid.get_node_ids())
        asked = [message(node) for node in (3, 1, 2, 1)]
        ids = list(grid.push_messages(asked))
        assert len(set(ids)) == 4
        found = {m.metadata.reply_to_message_id: m for m in pull_all(grid, ids)}
    for message_id, question in zip(ids, asked, strict=True):
        who = found[message_id].content["who"]["name"]  # type: ignore[index]
        assert who == nodes[question.metadata.dst_node_id]


def test_an_answer_is_pulled_once_and_unknown_ids_give_nothing() -> None:
    with grid_of(echo) as grid:
        ids = list(grid.push_messages([message(1)]))
        assert len(pull_all(grid, ids)) == 1
        assert list(grid.pull_messages(ids)) == []
        assert list(grid.pull_messages(["no such id"])) == []
        assert list(grid.pull_messages([])) == []


def test_answers_are_pulled_in_the_order_asked_for_whichever_came_first() -> None:
    gates = {name: threading.Event() for name in NAMES}

    def waits(arrived: Message, context: Context) -> Message:
        gates[str(context.node_config["name"])].wait(60)
        return named(arrived, context)

    with grid_of(waits) as grid:
        ids = list(grid.push_messages([message(node) for node in (1, 2, 3)]))
        gates["cy"].set()
        (first,) = pull_all(grid, ids[2:])
        assert first.content["who"]["name"] == "cy"  # type: ignore[index]
        gates["bob"].set()
        gates["ada"].set()
        again = list(grid.push_messages([message(3)]))
        for future in [grid._answers[i] for i in (*ids[:2], *again)]:
            future.result(60)
        names = [m.content["who"]["name"] for m in grid.pull_messages([*again, *ids])]  # type: ignore[index]
    assert names == ["cy", "ada", "bob"]


def test_an_absent_volunteer_is_an_error_reply_and_its_app_never_runs() -> None:
    served: list[str] = []

    def noting(arrived: Message, context: Context) -> Message:
        served.append(str(context.node_config["name"]))
        return named(arrived, context)

    def absent(volunteer: str, kind: str, group: str) -> bool:
        return (volunteer, kind, group) == ("bob", "train.local", "1")

    with grid_of(noting, absent=absent) as grid:
        replies = in_order(grid.send_and_receive([message(1), message(2)]))
        other = list(grid.send_and_receive([message(2, kind="query.report")]))
    assert [r.has_error() for r in replies] == [False, True]
    assert replies[1].error.code == ErrorCode.NODE_UNAVAILABLE
    assert not other[0].has_error()
    assert sorted(served) == ["ada", "bob"]


def test_an_exception_in_an_app_gives_its_class_name_and_no_more() -> None:
    def raises(arrived: Message, context: Context) -> Message:
        raise FileNotFoundError("/home/ada/diary.txt")

    with grid_of(raises) as grid:
        (back,) = grid.send_and_receive([message(1)])
    assert back.has_error()
    assert back.error.code == ErrorCode.CLIENT_APP_RAISED_EXCEPTION
    assert back.error.reason == "FileNotFoundError"
    assert "diary" not in str(back)


@pytest.mark.parametrize(
    "made",
    [
        lambda arrived: Message(
            RecordDict({"config": _Unserialisable({"bytes": b"x"})}), reply_to=arrived
        ),
        lambda arrived: None,
        lambda arrived: "not a message",
    ],
)
def test_a_reply_that_cannot_be_serialised_is_its_volunteers_failure_alone(
    made: Callable[[Message], Message],
) -> None:
    def odd(arrived: Message, context: Context) -> Message:
        return made(arrived) if context.node_config["name"] == "ada" else named(arrived, context)

    with grid_of(odd) as grid:
        replies = in_order(grid.send_and_receive([message(1), message(2)]))
    assert [r.has_error() for r in replies] == [True, False]
    assert replies[0].error.code == ErrorCode.CLIENT_APP_RAISED_EXCEPTION


class _Unserialisable(ConfigRecord):
    def deflate(self) -> bytes:
        raise TypeError("no bytes of this")


def test_volunteers_work_side_by_side_but_each_does_one_thing_at_a_time() -> None:
    met: list[str] = []
    everyone = threading.Barrier(3, timeout=60)
    twice = threading.Barrier(2, timeout=0.3)  # two messages of one volunteer never meet here

    def busy(arrived: Message, context: Context) -> Message:
        alone = arrived.metadata.message_type == "query.report"
        with contextlib.suppress(threading.BrokenBarrierError):
            (twice if alone else everyone).wait()
            met.append(arrived.metadata.message_type)
        return named(arrived, context)

    with grid_of(busy) as grid:
        replies = list(grid.send_and_receive([message(node) for node in (1, 2, 3)]))
        replies += grid.send_and_receive([message(1, kind="query.report") for _ in range(2)])
    assert not any(r.has_error() for r in replies)
    assert met == ["train.local"] * 3


def test_send_and_receive_gives_up_after_its_timeout() -> None:
    gate = threading.Event()

    def stuck(arrived: Message, context: Context) -> Message:
        gate.wait(60)
        return echo(arrived, context)

    with grid_of(stuck) as grid:
        assert list(grid.send_and_receive([message(1)], timeout=0.01)) == []
        gate.set()


def test_close_forgets_what_nobody_has_begun_and_waits_for_what_somebody_has() -> None:
    gate, begun = threading.Event(), threading.Event()
    served: list[int] = []

    def slow(arrived: Message, context: Context) -> Message:
        begun.set()
        gate.wait(60)
        served.append(context.node_id)
        return echo(arrived, context)

    grid = InProcessGrid(Answering(slow), NAMES, 1)
    ids = list(grid.push_messages([message(1), message(2), message(3)]))
    assert begun.wait(60)
    closing = threading.Thread(target=grid.close)
    closing.start()
    with pytest.raises(CancelledError):
        grid._answers[ids[2]].result(60)
    gate.set()
    closing.join(60)
    assert not closing.is_alive()
    assert served == [1]
    with pytest.raises(RuntimeError):
        grid.push_messages([message(1)])


def test_a_context_keeps_what_its_volunteer_wrote_between_messages() -> None:
    def counts(arrived: Message, context: Context) -> Message:
        record = context.state.config_records.get("n", ConfigRecord({"n": 0}))
        context.state["n"] = ConfigRecord({"n": int(record["n"]) + 1})  # type: ignore[arg-type]
        return Message(RecordDict({"n": context.state["n"]}), reply_to=arrived)

    with grid_of(counts) as grid:
        first = [
            m.content["n"]["n"]  # type: ignore[index]
            for _ in range(3)
            for m in grid.send_and_receive([message(1)])
        ]
        (other,) = grid.send_and_receive([message(2)])
    assert first == [1, 2, 3]
    assert other.content["n"]["n"] == 1  # type: ignore[index]
