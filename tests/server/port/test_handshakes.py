"""Whoever connects and does not shake hands holds little, and nobody else up."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from nomoat.server.port.handshakes import (
    COLLECT_S,
    IN_A_TURN,
    LEFT_OVER,
    CountingListener,
    ShakingHands,
)


class Line:
    """A connection as the table sees it."""

    def __init__(self) -> None:
        self.open = True

    def fileno(self) -> int:
        return 3 if self.open else -1

    def shutdown(self, _how: int) -> None:
        self.open = False


def begin(table: ShakingHands, address: str, port: int) -> Line:
    line = Line()
    table.begin((address, port), line)  # type: ignore[arg-type]
    return line


def test_the_oldest_of_an_address_makes_room_for_its_next() -> None:
    table = ShakingHands(most=10, most_of_an_address=2)
    first, second, third = (begin(table, "a", port) for port in range(3))
    assert (first.open, second.open, third.open) == (False, True, True)
    assert len(table) == 2


def test_the_most_crowded_address_makes_room_for_others() -> None:
    table = ShakingHands(most=4, most_of_an_address=3)
    crowd = [begin(table, "a", port) for port in range(3)]
    others = [begin(table, address, 1) for address in ("b", "c")]
    assert [line.open for line in crowd] == [False, True, True]
    assert all(line.open for line in others)


def test_who_has_shaken_hands_or_is_gone_is_counted_no_more() -> None:
    table = ShakingHands(most=10, most_of_an_address=2)
    first = begin(table, "a", 1)
    gone = begin(table, "a", 2)
    table.end(("a", 1))
    gone.open = False
    begin(table, "a", 3)
    last = begin(table, "a", 4)
    assert first.open
    assert last.open
    assert len(table) == 2
    table.end(("nobody", 1))
    table.end(None)


def test_what_was_cut_is_collected_but_not_all_the_time() -> None:
    now, collected = 100.0, []
    table = ShakingHands(
        most_of_an_address=1, clock=lambda: now, collect=lambda: collected.append(now)
    )
    for port in range(4 * LEFT_OVER):
        begin(table, "a", port)
    assert collected == [100.0]
    now = 100.0 + COLLECT_S
    begin(table, "a", 0)
    assert collected == [100.0, now]


@pytest.fixture
def listener() -> Iterator[CountingListener]:
    plain = socket.create_server(("127.0.0.1", 0))
    with CountingListener.of(plain, ShakingHands(most_of_an_address=1)) as made:
        yield made


def test_a_connection_that_made_room_reads_its_end(listener: CountingListener) -> None:
    where = listener.getsockname()
    with socket.create_connection(where, 5) as one, socket.create_connection(where, 5):
        kept = [listener.accept()[0] for _ in range(2)]
        assert one.recv(1) == b""
        for line in kept:
            line.close()


def test_after_some_connections_a_loop_turns_to_the_others_first() -> None:
    plain = socket.create_server(("127.0.0.1", 0))
    with CountingListener.of(plain, ShakingHands()) as listener, contextlib.ExitStack() as open_:
        for _ in range(IN_A_TURN + 1):
            open_.enter_context(socket.create_connection(listener.getsockname(), 5))
        for _ in range(IN_A_TURN):
            open_.enter_context(listener.accept()[0])
        with pytest.raises(BlockingIOError):
            listener.accept()
        open_.enter_context(listener.accept()[0])
