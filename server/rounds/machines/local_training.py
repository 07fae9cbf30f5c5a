"""Asking a cohort to train: a machine without I/O."""

from __future__ import annotations

import math

from nomoat.aggregation import methods
from nomoat.aggregation.errors import RemoteProtocolError
from nomoat.aggregation.methods import AnyMethod
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.messages import MAX_LOCAL_STEPS, Decline, Ready, TrainTask
from nomoat.server.rounds.machines.interfaces import Outgoing
from nomoat.server.rounds.machines.patience import Waiting

FOREVER = Waiting()


class LocalTraining:
    """Send a task to each volunteer of the cohort and wait until all have trained, or time is up.

    ready: who has trained, with what it says of it. lost: who has not, and why. late: who still
    trained when time was up, and when it counts as silent.
    """

    def __init__(
        self,
        task: TrainTask,
        cohort: tuple[str, ...],
        method: AnyMethod,
        waiting: Waiting = FOREVER,
    ) -> None:
        self.ready: dict[str, Ready] = {}
        self.lost: dict[str, str] = {}
        self.refused: dict[str, str] = {}  # empty: a wrong answer is refused at once
        self.late: dict[str, float] = {}
        self.next_deadline = math.inf
        self._task = task
        self._cohort = cohort
        self._method = method
        self._waits = waiting
        self._waiting = set(cohort)
        self._asked = 0.0
        self._answered: list[float] = []

    @property
    def done(self) -> bool:
        """True once nobody is waited for any more."""
        return not self._waiting

    def start(self, now: float) -> list[Outgoing]:
        """Announce the round to its cohort."""
        self._asked = now
        self.next_deadline = self._waits.until(now, (), self._cohort)
        packet = wire.encode(self._task)
        return [Outgoing(name, packet) for name in self._cohort]

    def receive(self, volunteer: str, packet: wire.Packet, now: float) -> list[Outgoing]:
        """Take one answer; RemoteProtocolError names whoever sent a wrong one."""
        if volunteer not in self._waiting:
            return []
        if wire.peek_kind(packet, volunteer) == wire.kind_of(Decline):
            self.lost[volunteer] = wire.decode(packet, Decline, volunteer).reason
        else:
            ready = wire.decode(packet, Ready, volunteer)
            if ready.round != self._task.round:
                raise RemoteProtocolError(volunteer, "§4", f"is ready for round {ready.round}")
            self._check_rank(volunteer, ready.rank)
            self._check_work(volunteer, ready)
            self.ready[volunteer] = ready
        self._waiting.discard(volunteer)
        self._answered.append(now)
        self.next_deadline = self._waits.until(self._asked, self._answered, self._waiting)
        return []

    def leave(self, volunteer: str, reason: str, now: float) -> list[Outgoing]:
        """Go on without this volunteer."""
        self._waiting.discard(volunteer)
        return []

    def wake(self, now: float) -> list[Outgoing]:
        """Give up on whoever is late."""
        if now >= self.next_deadline:
            self.lost |= dict.fromkeys(sorted(self._waiting), "too late to train")
            silent_at = self._waits.silent_at(self._asked, self._answered, self._waiting)
            self.late = dict.fromkeys(self._waiting, silent_at)
            self._waiting.clear()
        return []

    def _check_work(self, volunteer: str, ready: Ready) -> None:
        """Refuse more steps or tokens than the task asks for: a receipt will repeat them."""
        asked = self._task.settings
        steps = MAX_LOCAL_STEPS if asked.local_epochs else asked.local_steps
        if ready.steps > steps:
            raise RemoteProtocolError(volunteer, "§4", f"took {ready.steps} steps of {steps}")
        most = ready.steps * asked.batch_size * asked.seq_len
        if ready.tokens > most:
            reason = f"trained on {ready.tokens} tokens, {most} fit into its steps"
            raise RemoteProtocolError(volunteer, "§4", reason)

    def _check_rank(self, volunteer: str, rank: int) -> None:
        most = self._task.trainable_rank
        least = 1 if self._method.traits.mixed_ranks else most
        if least <= rank <= most:
            return
        reason = f"trained rank {rank}, not {least}{f' to {most}' if least < most else ''}"
        if 1 <= rank < least:
            can = ", ".join(methods.able(mixed_ranks=True, summable=self._method.traits.summable))
            reason += f": {self._method.name} needs equal ranks; {can} can mix them"
        raise RemoteProtocolError(volunteer, "§4", reason)
