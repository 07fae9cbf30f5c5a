"""Presence: what a community is waiting for, told to a member that asks (docs/protocol.md §5.5).

It binds nobody and is not signed: the connection vouches for it, and nothing is decided by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from nomoat.aggregation.protocol import wire


@wire.message("community.presence", grows=True)
@dataclass(frozen=True, slots=True)
class Presence:
    """The phase a round is in, how many volunteers it asked, and how many of them answered.

    Before a round opens: how many are needed, and how many are there.
    """

    round: Annotated[int, wire.Limit(0, 2**40)]
    phase: Annotated[str, wire.Limit(1, 40)]
    opening: bool
    answered: Annotated[int, wire.Limit(0, 1_000_000)]
    asked: Annotated[int, wire.Limit(0, 1_000_000)]

    def in_words(self) -> str:
        """Say it to a volunteer that waits."""
        if self.opening:
            more = max(self.asked - self.answered, 0)
            if more == 0:
                return "the round is about to open"
            return (
                f"{more} more volunteer{'s' if more > 1 else ''} needed before round {self.round}"
            )
        counts = f", {self.answered} of {self.asked} done" if self.asked else ""
        return f"the coordinator is at round {self.round}: {self.phase}{counts}"
