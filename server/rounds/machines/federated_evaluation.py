"""Asking volunteers for the held-out loss of one adapter: a machine without I/O."""

from __future__ import annotations

import math
from collections.abc import Mapping

from nomoat.aggregation.errors import RemoteProtocolError
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.adapter import Adapter, as_bytes
from nomoat.aggregation.protocol.messages import (
    DIVERGED,
    AdapterShape,
    Decline,
    EvaluateTask,
    Evaluation,
    TrainTask,
)
from nomoat.server.rounds.machines.interfaces import Outgoing
from nomoat.server.rounds.machines.patience import Waiting

FOREVER = Waiting()


class FederatedEvaluation:
    """Collect one Evaluation from each volunteer, until all have answered or time is up.

    own: the adapter, if the coordinator measures it on the community's rows, too; that is waited
    for as long as it takes. losses and personal: volunteer → nats per token, with the adapter alone
    and with what the volunteer keeps to itself.
    """

    stage = "evaluating"

    def __init__(
        self,
        task: EvaluateTask,
        volunteers: tuple[str, ...],
        waiting: Waiting = FOREVER,
        own: Adapter | None = None,
    ) -> None:
        self.losses: dict[str, float] = {}
        self.personal: dict[str, float] = {}
        self.diverged: set[str] = set()  # who say that the adapter has no finite loss
        self.evaluation: float | None = None  # on the community's rows
        self.lost: dict[str, str] = {}
        self.refused: dict[str, str] = {}
        self.next_deadline = math.inf
        self._task = task
        self._volunteers = volunteers
        self._waiting = set(volunteers)
        self._waits = waiting
        self._asked = 0.0
        self._answered: list[float] = []
        self._own = own

    @property
    def done(self) -> bool:
        """True once nobody is waited for any more."""
        return not self._waiting and self._own is None

    @property
    def stragglers(self) -> Mapping[str, float]:
        """Nobody: a measurement that is late is not waited for."""
        return {}

    @property
    def to_measure(self) -> Adapter | None:
        """The adapter, while the coordinator's own measurement of it is waited for."""
        return self._own

    def measured(self, loss: float | None, now: float) -> list[Outgoing]:
        """Take the coordinator's own measurement; None if it could not be made."""
        self.evaluation, self._own = loss, None
        return []

    def start(self, now: float) -> list[Outgoing]:
        """Ask everyone."""
        self._asked = now
        self.next_deadline = self._waits.until(now, (), self._volunteers)
        packet = wire.encode(self._task)
        return [Outgoing(name, packet) for name in self._volunteers]

    def receive(self, volunteer: str, packet: wire.Packet, now: float) -> list[Outgoing]:
        """Take one answer; what breaks the protocol is noted and its sender left out."""
        if volunteer in self._waiting:
            self._waiting.discard(volunteer)
            self._answered.append(now)
            self.next_deadline = self._waits.until(self._asked, self._answered, self._waiting)
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
            said = wire.decode(packet, Decline, volunteer)
            self.lost[volunteer] = said.reason
            if (said.round, said.reason) == (self._task.round, DIVERGED):
                self.diverged.add(volunteer)
            return
        evaluation = wire.decode(packet, Evaluation, volunteer)
        if evaluation.round != self._task.round:
            raise RemoteProtocolError(volunteer, "§4", f"evaluated round {evaluation.round}")
        self.losses[volunteer] = evaluation.loss
        if evaluation.personal is not None:
            self.personal[volunteer] = evaluation.personal


def evaluation_of(adapter: Adapter, task: TrainTask, number: int | None = None) -> EvaluateTask:
    """The request to measure `adapter` under the settings of `task`."""
    return EvaluateTask(
        task.round if number is None else number,
        task.base_hash,
        AdapterShape.of(adapter.spec),
        task.settings,
        as_bytes(adapter.vector),
    )
