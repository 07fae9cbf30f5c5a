"""Room for neighbours at the GPU who cannot be asked: volunteers in containers of their own. Pure.

Of a program outside this container only its process id is seen, and only while it computes: one
that waits for us shows nothing. So whoever has met such a program, or runs in a container where it
would meet none before it yields, does not keep the GPU for good, but makes a break after a turn,
longer than a neighbour takes to come back (policy.py's rule "outside"). After each break in which
nobody came the next turn is twice as long; who is in no container needs no more breaks at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

TURN: Final = timedelta(minutes=10)
BREAK: Final = timedelta(minutes=4)
MOST_DOUBLINGS: Final = 5  # turns of 5 hours and 20 minutes


@dataclass(frozen=True, slots=True)
class Courtesy:
    """met: an outside program had the GPU. since: of this turn. until: of the break, in one.

    alone: breaks in a row in which nobody came.
    """

    met: bool = False
    since: datetime | None = None
    until: datetime | None = None
    alone: int = 0


@dataclass(frozen=True, slots=True)
class Neighbourhood:
    """outside: a program that cannot be asked has the GPU. apart: this is a container.

    free: nothing else forbids training.
    """

    outside: bool
    apart: bool
    free: bool


def after(before: Courtesy, seen: Neighbourhood, now: datetime) -> Courtesy:
    """The state now."""
    if seen.outside:
        return Courtesy(met=True)
    if before.until is not None:
        ends_s = before.until.timestamp() - now.timestamp()
        in_it = 0 < ends_s <= BREAK.total_seconds()  # a clock set back ends the break
        return before if in_it else Courtesy(alone=before.alone + 1)
    if not (before.met or seen.apart) or not seen.free:
        return Courtesy(before.met, alone=before.alone)
    since = before.since or now
    turn_s = TURN.total_seconds() * 2 ** min(before.alone, MOST_DOUBLINGS)
    if now.timestamp() - since.timestamp() < turn_s:
        return Courtesy(before.met, since, alone=before.alone)
    return Courtesy(before.met, None, now + BREAK, before.alone)
