"""A new connection finds room while another is idle; nobody who is being served is cut off."""

from __future__ import annotations

from nomoat.server.port.connections import ConnectionTable


class Line:
    def __init__(self, busy: bool = False) -> None:
        self.busy = busy
        self.dropped = False

    def idle(self) -> bool:
        return not self.busy

    def drop(self) -> None:
        self.dropped = True


def test_a_full_table_drops_the_longest_idle_of_the_largest_crowd() -> None:
    table = ConnectionTable(most=4, per_address=10)
    crowd, honest, newcomer = [Line() for _ in range(3)], Line(), Line()
    for line in crowd:
        assert table.admit("10.0.0.1", line)
    assert table.admit("10.0.0.2", honest)
    table.touch("10.0.0.1", crowd[0])  # it has asked for something: now the second is idlest
    assert table.admit("10.0.0.3", newcomer)
    assert [line.dropped for line in crowd] == [False, True, False]
    assert not honest.dropped
    assert len(table) == 4


def test_an_address_crowds_out_nobody_but_itself() -> None:
    table = ConnectionTable(most=100, per_address=2)
    lines = [Line() for _ in range(3)]
    others = [Line() for _ in range(5)]
    for number, line in enumerate(others):
        assert table.admit(f"10.0.1.{number}", line)
    assert all(table.admit("10.0.0.1", line) for line in lines)
    assert [line.dropped for line in lines] == [True, False, False]
    assert not any(line.dropped for line in others)


def test_whoever_is_being_served_stays_and_the_newcomer_is_refused() -> None:
    table = ConnectionTable(most=2, per_address=2)
    busy = [Line(busy=True), Line(busy=True)]
    assert all(table.admit("10.0.0.1", line) for line in busy)
    assert not table.admit("10.0.0.2", Line())
    assert not table.admit("10.0.0.1", Line())
    assert not any(line.dropped for line in busy)
    assert len(table) == 2


def test_a_closed_connection_makes_room() -> None:
    table = ConnectionTable(most=1, per_address=1)
    first = Line(busy=True)
    assert table.admit("10.0.0.1", first)
    table.remove(first)
    table.remove(first)  # its end may be told twice
    assert len(table) == 0
    assert table.admit("10.0.0.2", Line(busy=True))
