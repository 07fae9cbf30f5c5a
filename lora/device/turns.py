"""Turns at a GPU that several programs of ours use: pure, the files are gpu_queue.py's.

Everybody who wants the GPU draws a ticket, and tickets are served in the order in which they were
drawn; nobody overtakes. One that is served has the GPU until it is idle, or until its turn is over
and somebody waits whom it keeps from working; then it draws a new ticket, behind all others. With n
tickets each waits for at most n − 1 turns, and while anybody wants the GPU somebody has it.

Tickets of one owner may be served together where the plan says that they fit: each says how many
bytes it needs, and their sum stays within what programs of ours may have of the device. Owners do
not share: what one program needs is its own word, and a wrong one would cost somebody else's work.

    standing(tickets, mine.number, room_bytes) → TicketStanding(may_run, behind)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

TURN_S: Final = 300.0  # loading a base again costs seconds to a minute: a turn is worth several


@dataclass(frozen=True, slots=True)
class Ticket:
    """A wish to use the GPU, or its use.

    number: order of arrival. owner: the user's id. pids: processes that compute for it, as the
    driver numbers them. need_bytes: of the device, None if nobody knows. running: it has the GPU.
    """

    number: int
    owner: str
    pids: tuple[int, ...] = ()
    need_bytes: int | None = None
    running: bool = False


@dataclass(frozen=True, slots=True)
class TicketStanding:
    """A ticket's place in the queue: served, or behind the one it waits for."""

    may_run: bool
    behind: Ticket | None = None


def standing(tickets: Sequence[Ticket], number: int, room_bytes: int | None) -> TicketStanding:
    """Judge the ticket with this number among all live ones, itself included.

    room_bytes: what these tickets' programs may have of the device together, None if unknown.
    """
    mine = next(ticket for ticket in tickets if ticket.number == number)
    if mine.running:
        return TicketStanding(True)
    running = [ticket for ticket in tickets if ticket.running]
    earlier = [t for t in tickets if not t.running and t.number < number]
    if earlier:
        return TicketStanding(False, min(earlier, key=lambda t: t.number))
    if running and not _fit([*running, mine], room_bytes):
        return TicketStanding(False, min(running, key=lambda t: t.number))
    return TicketStanding(True)


def must_hand_over(
    tickets: Sequence[Ticket], number: int, room_bytes: int | None, ran_s: float, idle: bool
) -> bool:
    """Tell whether a running ticket's holder has to let others go first, `ran_s` into its turn."""
    waiting = [ticket for ticket in tickets if not ticket.running]
    if not waiting or not (idle or ran_s >= TURN_S):
        return False
    first = min(waiting, key=lambda t: t.number)
    behind = standing(tickets, first.number, room_bytes).behind
    mine = next(ticket for ticket in tickets if ticket.number == number)
    return behind is not None and behind.running and mine.running


def _fit(together: Sequence[Ticket], room_bytes: int | None) -> bool:
    needs = [ticket.need_bytes for ticket in together]
    known = [need for need in needs if need is not None]
    one_owner = len({ticket.owner for ticket in together}) == 1
    return room_bytes is not None and one_owner and len(known) == len(needs) and (
        sum(known) <= room_bytes
    )  # fmt: skip
