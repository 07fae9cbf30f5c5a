"""Asking volunteers for the held-out loss of one adapter: a machine without I/O."""

from __future__ import annotations

import math

from nomoat.aggregation.errors import RemoteProtocolError
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.messages import Decline, EvaluateTask, Evaluation
from nomoat.server.rounds.conversation import Outgoing


class FederatedEvaluation:
    """Collect one Evaluation from each volunteer, until all have answered or time is up."""

    def __init__(
        self, task: EvaluateTask, volunteers: tuple[str, ...], deadline_s: float = math.inf
    ) -> None:
        self.losses: dict[str, float] = {}
        self.personal: dict[str, float] = {}
        self.lost: dict[str, str] = {}
        self.refused: dict[str, str] = {}
        self._task = task
        self._volunteers = volunteers
        self._waiting = set(volunteers)
        self._deadline_s = deadline_s
        self.next_deadline = math.inf

    @property
    def done(self) -> bool:
        """Nobody is waited for any more."""
        return not self._waiting

    def start(self, now: float) -> list[Outgoing]:
        """Ask everyone."""
        self.next_deadline = now + self._deadline_s
        packet = wire.encode(self._task)
        return [Outgoing(name, packet) for name in self._volunteers]

    def receive(self, volunteer: str, packet: wire.Packet, now: float) -> list[Outgoing]:
        """Take one answer; what breaks the protocol is noted and its sender left out."""
        if volunteer in self._waiting:
            self._waiting.discard(volunteer)
            try:
                self._take(volunteer, packet)
            except RemoteProtocolError as problem:
                return self.refuse(volunteer, problem.reason, now)
        return []

    def leave(self, volunteer: str, reason: str, now: float) -> list[Outgoing]:
        """Go on without this volunteer."""
        if volunteer in self._waiting:
            self._waiting.discard(volunteer)
            self.lost[volunteer] = reason
        return []

    def refuse(self, volunteer: str, reason: str, now: float) -> list[Outgoing]:
        """Go on without a volunteer that breaks the protocol."""
        self._waiting.discard(volunteer)
        self.refused.setdefault(volunteer, reason)
        return []

    def wake(self, now: float) -> list[Outgoing]:
        """Give up on whoever is late."""
        if now >= self.next_deadline:
            for volunteer in sorted(self._waiting):
                self.leave(volunteer, "too late to evaluate", now)
        return []

    def _take(self, volunteer: str, packet: wire.Packet) -> None:
        if wire.peek_kind(packet, volunteer) == wire.kind_of(Decline):
            self.lost[volunteer] = wire.decode(packet, Decline, volunteer).reason
            return
        evaluation = wire.decode(packet, Evaluation, volunteer)
        if evaluation.round != self._task.round:
            raise RemoteProtocolError(volunteer, "§4", f"evaluated round {evaluation.round}")
        self.losses[volunteer] = evaluation.loss
        if evaluation.personal is not None:
            self.personal[volunteer] = evaluation.personal
