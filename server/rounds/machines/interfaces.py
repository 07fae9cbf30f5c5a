"""The interfaces of a round's machines: they take messages and time, and give messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from nomoat.aggregation.methods.base import PlaintextReport
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.adapter import Adapter, Vector
from nomoat.aggregation.sums.norm_bound import NormBound
from nomoat.server.rounds.machines.evidence import SessionEvidence


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message for a volunteer, already encoded: the same packet often goes to many."""

    volunteer: str
    packet: wire.Packet


class ProtocolMachine(Protocol):
    """A conversation with volunteers. Times are seconds on the caller's clock.

    `receive` may raise RemoteProtocolError; whoever called it then names the sender and calls
    `leave`. A fault that shows only later is in `refused`.
    """

    refused: dict[str, str]  # volunteer → fault that was found after receive() took its answer

    @property
    def done(self) -> bool:
        """True once nothing more is needed."""

    @property
    def next_deadline(self) -> float:
        """The time at which `wake` has something to do, inf if there is none."""

    def start(self, now: float) -> list[Outgoing]:
        """Return the first messages."""

    def receive(self, volunteer: str, packet: wire.Packet, now: float) -> list[Outgoing]:
        """Take one answer."""

    def leave(self, volunteer: str, reason: str, now: float) -> list[Outgoing]:
        """Go on without a volunteer that will not answer: gone, refused, or an error."""

    def wake(self, now: float) -> list[Outgoing]:
        """Act on deadlines that have passed."""


class Exchange(ProtocolMachine, Protocol):
    """A machine that finds the mean of its cohort's uploads (plain, or masked), or, where
    nothing is masked and a method needs it, the uploads themselves.
    """

    mean: Vector | None  # (d,), once found
    uploads: tuple[
        PlaintextReport, ...
    ]  # in the order of contributors; empty where there is a mean
    contributors: tuple[str, ...]
    lost: dict[str, str]  # volunteer → why its upload is not in the mean, where it is not to blame
    failed: str | None  # why it cannot be found any more
    bound: NormBound | None  # that the mean must keep to, if there is one

    @property
    def evidence(self) -> SessionEvidence:
        """Return what the exchange has shown of its participants."""


class DrivenMachine(Protocol):
    """A machine the driver talks to directly: nothing a volunteer sends makes it raise."""

    @property
    def done(self) -> bool:
        """True once nothing more is needed."""

    @property
    def stage(self) -> str:
        """The name of the phase it is in, for whoever watches."""

    @property
    def stragglers(self) -> Mapping[str, float]:
        """Return who still works on its task, and when it counts as silent."""

    @property
    def to_measure(self) -> Adapter | None:
        """The adapter whose loss on the community's own rows it waits for, if it does."""

    def start(self, now: float) -> list[Outgoing]:
        """Return the first messages."""

    def receive(self, volunteer: str, packet: wire.Packet, now: float) -> list[Outgoing]:
        """Take one answer."""

    def refuse(self, volunteer: str, reason: str, now: float) -> list[Outgoing]:
        """Go on without a volunteer in whose name came what is not its own, or not whole."""

    def leave(self, volunteer: str, reason: str, now: float) -> list[Outgoing]:
        """Go on without a volunteer that will not answer."""

    def wake(self, now: float) -> list[Outgoing]:
        """Act on deadlines that have passed."""

    def measured(self, loss: float | None, now: float) -> list[Outgoing]:
        """Take the loss of `to_measure`, None if it could not be measured."""
