"""Messages under way: found by their node, gone with what they were answered with."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from nomoat.server.fleet.fleet_grid import FleetGrid, open_run
from nomoat.server.fleet.link_state import FleetState


@pytest.fixture
def state(tmp_path: Path) -> Iterator[FleetState]:
    """A fleet whose members are named by their keys, and a run that is open."""
    made = FleetState(tmp_path, lambda key: key.decode())
    with open_run(made, FleetGrid(made, 60.0)):
        yield made
    made.close()


def nodes(state: FleetState, count: int) -> list[int]:
    found = [state.get_node_id_by_public_key(f"key{n}".encode()) for n in range(count)]
    assert all(node and state.activate_node(node, 30.0) for node in found)
    return [node for node in found if node]


def ask(state: FleetState, *to: int) -> list[str]:
    grid = FleetGrid(state, 60.0)
    grid.set_run(state.get_run_info(run_ids=[state.run_id])[0])
    content = RecordDict({"head": ConfigRecord({"bytes": b"hello"})})
    return list(
        grid.push_messages([Message(content, node, "train.local", group_id="1") for node in to])
    )


def test_a_node_gets_its_own_messages_once_and_nobody_elses_is_looked_at(
    state: FleetState, monkeypatch: pytest.MonkeyPatch
) -> None:
    everybody = nodes(state, 50)
    asked = dict(zip(everybody, ask(state, *everybody), strict=True))
    looked: list[set[str]] = []
    monkeypatch.setattr(state, "_check_stored_messages", lambda ids, *_: looked.append(ids))
    (got,) = state.get_message_ins(everybody[7], 1)
    assert got.metadata.message_id == asked[everybody[7]]
    assert state.get_message_ins(everybody[7], 1) == []
    assert set().union(*looked) == {asked[everybody[7]]}


def test_what_a_node_does_not_have_is_offered_again_and_what_it_has_is_not(
    state: FleetState,
) -> None:
    (node,) = nodes(state, 1)
    first, second = *ask(state, node), *ask(state, node)
    assert {m.metadata.message_id for m in state.get_message_ins(node, None)} == {first, second}
    state.offer_again(node, frozenset({first}))
    assert state.has_mail(node)
    assert [m.metadata.message_id for m in state.get_message_ins(node, None)] == [second]


def test_messages_that_are_taken_back_leave_nothing(state: FleetState) -> None:
    one, other = nodes(state, 2)
    asked = ask(state, one, other)
    state.forget(asked)
    assert state.num_message_ins() == 0
    assert not state.has_mail(one)
    assert not state.is_addressed_to(other, asked[1])
    assert state.unanswered(state.run_id) == []


def test_a_database_of_an_earlier_release_is_removed(tmp_path: Path) -> None:
    for name in ("link.db", "link.db-wal"):
        (tmp_path / name).write_bytes(b"old")
    FleetState(tmp_path, lambda _key: None).close()
    assert not list(tmp_path.glob("link.db*"))


def test_nobody_is_here_because_the_clock_was_set_back_and_is_not_waited_for(
    state: FleetState,
) -> None:
    (node,) = nodes(state, 1)
    clock = [time.time()]
    grid = FleetGrid(state, 60.0, lambda: clock[0])
    grid.set_run(state.get_run_info(run_ids=[state.run_id])[0])
    content = RecordDict({"head": ConfigRecord({"bytes": b"hello"})})
    asked = list(grid.push_messages([Message(content, node, "train.local", group_id="1")]))
    assert list(grid.pull_messages(asked)) == []
    state.nodes[node].online_until += 3600.0  # seen from a clock that is an hour behind
    clock[0] -= 3600.0
    assert grid.online() == {}
    clock[0] += 3600.0 + 59.0
    assert list(grid.pull_messages(asked)) == []
    clock[0] += 2.0
    (gone,) = grid.pull_messages(asked)
    assert gone.has_error()
    assert state.acknowledge_node_heartbeat(node, 30.0)  # heard again: it is here
    assert list(grid.online().values()) == [node]
