"""Turns at a GPU: nobody overtakes, nobody waits for ever, nothing is given out twice."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from nomoat.lora.device.turns import TURN_S, Ticket, TicketStanding, must_hand_over, standing

GIB = 1 << 30
YOURS = Ticket(1, "1000", (41,), 4 * GIB, running=True)


def test_one_alone_has_the_gpu_at_once_and_for_as_long_as_it_likes() -> None:
    alone = Ticket(7, "1000")
    assert standing([alone], 7, None) == TicketStanding(True)
    assert not must_hand_over([replace(alone, running=True)], 7, None, 1e9, idle=True)


def test_programs_of_one_owner_share_what_is_enough_for_both() -> None:
    second = Ticket(2, "1000", (), 3 * GIB)
    assert standing([YOURS, second], 2, 7 * GIB) == TicketStanding(True)
    assert standing([YOURS, second], 2, 7 * GIB - 1) == TicketStanding(False, YOURS)
    assert standing([YOURS, second], 2, None).may_run is False  # nobody knows what there is
    unknown = replace(second, need_bytes=None)
    assert standing([YOURS, unknown], 2, 80 * GIB).may_run is False


def test_somebody_elses_program_takes_turns_however_much_room_there_is() -> None:
    theirs = Ticket(2, "1001", (), GIB)
    assert standing([YOURS, theirs], 2, 80 * GIB) == TicketStanding(False, YOURS)
    assert not must_hand_over([YOURS, theirs], 1, 80 * GIB, TURN_S - 1, idle=False)
    assert must_hand_over([YOURS, theirs], 1, 80 * GIB, TURN_S, idle=False)
    assert must_hand_over([YOURS, theirs], 1, 80 * GIB, 0.0, idle=True)


def test_who_can_share_with_whoever_waits_keeps_the_gpu() -> None:
    second = Ticket(2, "1000", (), 3 * GIB)
    assert not must_hand_over([YOURS, second], 1, 8 * GIB, 1e9, idle=True)


def test_who_came_later_does_not_overtake_even_where_it_would_fit() -> None:
    large, small = Ticket(2, "1000", (), 6 * GIB), Ticket(3, "1000", (), GIB)
    assert standing([YOURS, large, small], 3, 8 * GIB) == TicketStanding(False, large)


NEEDS = st.one_of(st.none(), st.integers(0, 9))


@given(
    st.lists(st.tuples(st.sampled_from(["a", "b"]), NEEDS), min_size=2, max_size=6),
    st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=60),
    st.one_of(st.none(), st.just(10)),
)
def test_somebody_always_has_the_gpu_and_everybody_gets_it(
    programs: list[tuple[str, int | None]],
    events: list[tuple[int, bool]],
    room: int | None,
) -> None:
    """Programs that want it for ever look in any order; a turn may be over whenever one looks."""
    tickets = {i: Ticket(i, owner, (), need) for i, (owner, need) in enumerate(programs)}
    fresh = len(programs)
    served = dict.fromkeys(tickets, 0)

    def look(who: int, over: bool) -> None:
        nonlocal fresh
        live, mine = list(tickets.values()), tickets[who]
        if mine.running:
            if must_hand_over(live, mine.number, room, TURN_S if over else 0.0, idle=False):
                tickets[who] = replace(mine, number=fresh, running=False)
                fresh += 1
        elif standing(live, mine.number, room).may_run:
            tickets[who] = replace(mine, running=True)
            served[who] += 1

    for who, over in events:
        look(who % len(programs), over)
        running = [ticket for ticket in tickets.values() if ticket.running]
        if len(running) > 1:
            assert len({ticket.owner for ticket in running}) == 1
            assert sum(ticket.need_bytes or 0 for ticket in running) <= (room or 0)
            assert all(ticket.need_bytes is not None for ticket in running)
    before = dict(served)
    for _ in range(2 * len(programs)):  # everybody looks, every turn is over: all come to their own
        for who in tickets:
            look(who, True)
        for who in tickets:
            look(who, False)
        assert any(ticket.running for ticket in tickets.values())
    for who, ticket in tickets.items():
        assert ticket.running or served[who] > before[who]
