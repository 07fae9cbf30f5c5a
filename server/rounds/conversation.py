"""What the driver drives: machines that take messages and time, and give messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from nomoat.aggregation.methods.base import Upload
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.adapter import Vector


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message for a volunteer, already encoded: the same packet often goes to many."""

    volunteer: str
    packet: wire.Packet


class Conversation(Protocol):
    """A conversation with volunteers. Times are seconds on the caller's clock."""

    @property
    def done(self) -> bool:
        """It needs nothing more."""

    @property
    def next_deadline(self) -> float:
        """When `wake` has something to do."""

    def start(self, now: float) -> list[Outgoing]:
        """The first messages."""

    def receive(self, volunteer: str, packet: wire.Packet, now: float) -> list[Outgoing]:
        """One answer. Never raises for what a volunteer sent."""

    def leave(self, volunteer: str, reason: str, now: float) -> list[Outgoing]:
        """This volunteer will not answer: gone, or its answer was an error."""

    def wake(self, now: float) -> list[Outgoing]:
        """Time has passed."""


class Driven(Conversation, Protocol):
    """A machine the driver talks to directly."""

    def refuse(self, volunteer: str, reason: str, now: float) -> list[Outgoing]:
        """What came in this volunteer's name is not its own, or not whole: leave it out."""


class Exchange(Conversation, Protocol):
    """A machine that finds the weighted mean of its cohort's uploads (plain, or masked), or, where
    nothing is masked and a method needs it, the uploads themselves.

    Unlike other machines it may raise RemoteProtocolError from `receive`; the round names the
    sender and tells the exchange with `leave`. A fault that shows only later is in `refused`.
    """

    mean: Vector | None  # (d,), once found
    uploads: tuple[Upload, ...]  # in the order of contributors; empty where there is a mean
    contributors: tuple[str, ...]
    refused: dict[str, str]  # volunteer → fault that was found after receive() took its report
    failed: str | None  # why it cannot be found any more
