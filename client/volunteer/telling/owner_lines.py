"""A line for each event: joined, waiting for two more, training, loss, minutes left, summed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from nomoat.aggregation.plain_text import one_line
from nomoat.client.round.observer import RoundObserver
from nomoat.client.round.work import EvaluateWork, TrainWork, Work
from nomoat.client.volunteer.status import VolunteerStatus
from nomoat.lora.training.steps import TrainingStep

STEP_EVERY_S = 15.0
TOLD = ("connecting", "waiting", "paused", "refused")  # work has lines of its own
MINUTE_S = 60.0
OPENING = "waiting for the coordinator to open a round"
GOING_ON = "waiting for the coordinator to go on"
RETRY = "; next try in"


def nobody(_line: str) -> None:
    """Tell nobody."""


@dataclass
class OwnerLines(RoundObserver):
    """Gives `say` a line for each event that is new. clock: seconds, of any origin."""

    say: Callable[[str], None] = nobody
    clock: Callable[[], float] = time.monotonic
    _round: int = field(default=0, init=False)
    _state: tuple[str, str] = field(default=("", ""), init=False)
    _last: str = field(default="", init=False)
    _loss: float | None = field(default=None, init=False)
    _version: int | None = field(default=None, init=False)
    _step_at: float = field(default=float("-inf"), init=False)

    def status(self, status: VolunteerStatus) -> None:
        """Tell why nothing is trained now, and a version that has come."""
        if status.version is not None and status.version != self._version:
            self._version = status.version
            note = f" ({status.version_note})" if status.version_note else ""
            self._tell(f"version {status.version} of the community's adapter is here{note}")
        reason, _, _ = status.why.partition(RETRY)  # once for each, however often it is tried
        if status.doing in TOLD and (status.doing, reason) != self._state and reason != GOING_ON:
            self._state = (status.doing, reason)
            again = reason.startswith(status.doing)
            self._tell(reason if again else f"{status.doing}: {reason}")

    def begun(self, work: Work) -> None:
        """Tell what a round asks for."""
        self._state = ("working", "")
        self._round, self._step_at = work.task.round, float("-inf")
        if isinstance(work, TrainWork):
            self._tell(f"round {self._round}: training on your rows")
        elif isinstance(work, EvaluateWork):
            self._tell(f"round {self._round}: measuring an adapter on the rows you hold out")

    def stepped(self, step: TrainingStep) -> None:
        """Tell how far a training is, now and then, and how long it will take."""
        now = self.clock()
        if now - self._step_at < STEP_EVERY_S and step.step < step.steps:
            return
        self._step_at = now
        left = step.seconds / step.step * (step.steps - step.step)
        done = f"step {step.step} of {step.steps}, loss {step.loss:.3f}"
        about = f", about {_span(left)} left" if left else ""
        self._tell(f"round {self._round}: {done}{about}")

    def trained(self) -> None:
        """Tell that the update is kept until it is asked for."""
        self._tell(f"round {self._round}: trained; the update waits here for the sum")

    def reported(self) -> None:
        """Tell that the update leaves."""
        self._tell(f"round {self._round}: the update leaves for the sum (nomoat sent shows it)")

    def measured(self, loss: float, own_loss: float | None) -> None:
        """Tell the loss, and the one before it."""
        del own_loss
        before = "" if self._loss is None else f" ({self._loss:.4f} before)"
        self._loss = loss
        self._tell(f"round {self._round}: held-out loss on your rows {loss:.4f}{before}")

    def declined(self, complaint: str) -> None:
        """Tell why this machine takes no part."""
        self._tell(f"declined: {complaint}")

    def failed(self, work: Work, problem: str) -> None:
        """Tell what went wrong."""
        self._tell(f"round {work.task.round}: failed: {problem}")

    def refused(self, problem: str) -> None:
        """Tell what was refused."""
        self._tell(f"refused: {problem}")

    def _tell(self, line: str) -> None:
        if line != self._last:
            self._last = line
            self.say(one_line(line))


def _span(seconds: float) -> str:
    if seconds < MINUTE_S:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / MINUTE_S:.0f} min"
