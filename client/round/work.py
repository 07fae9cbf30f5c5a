"""Values that a session gives and takes: requests, work, the held update, steps, refusals."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeAlias

from nomoat.aggregation import methods
from nomoat.aggregation.errors import NomoatError
from nomoat.aggregation.methods import modules
from nomoat.aggregation.methods.base import LocalStart
from nomoat.aggregation.protocol import messages
from nomoat.aggregation.protocol.adapter import Adapter, Manifest
from nomoat.aggregation.protocol.messages import (
    Decline,
    EvaluateTask,
    Evaluation,
    ExchangeReply,
    Noted,
    Ready,
    Report,
    ReportRequest,
    TrainTask,
    task_digest,
)
from nomoat.aggregation.secagg.diary import Mark
from nomoat.aggregation.secagg.messages import ToCoordinator, ToVolunteer

Request: TypeAlias = TrainTask | ReportRequest | EvaluateTask | ExchangeReply | ToVolunteer
Answer: TypeAlias = Ready | Report | Evaluation | Decline | Noted | ToCoordinator


class Reason(StrEnum):
    """Reasons to decline: fixed words, so that nothing of the machine leaks through them."""

    OTHER_BASE = "base model differs"
    OVER_LIMITS = "settings exceed my limits"
    STALE = messages.STALE
    NOTHING_HELD = "nothing held for this round"
    MALFORMED = "malformed request"
    FAILED = "work failed"
    PAUSED = "paused"
    UNSAFE = "unsafe request refused"
    SPENT = messages.SPENT
    DIVERGED = messages.DIVERGED


class Overtaken(NomoatError):
    """The coordinator has gone on; nobody waits for this work any more."""


def as_told(loss: float) -> float:
    """A loss as it leaves this machine: four digits, so that it tells less of single rows."""
    return float(f"{loss:.4g}")


def decline(round_number: int, reason: Reason) -> Decline:
    """A Decline in one of the fixed words: their plain text, which is what the wire takes."""
    return Decline(round_number, reason.value)


@dataclass(frozen=True, slots=True)
class TrainWork:
    """Train `local.adapter` of `version`; `seed` is this volunteer's own for this round."""

    task: TrainTask
    local: LocalStart
    seed: bytes
    version: bytes = b""


@dataclass(frozen=True, slots=True)
class EvaluateWork:
    """Measure `adapter` on this volunteer's held-out rows."""

    task: EvaluateTask
    adapter: Adapter


Work: TypeAlias = TrainWork | EvaluateWork


@dataclass(frozen=True)
class HeldUpdate:
    """An update that waits for its aggregation: where training started, where it ended.

    version: of what it was trained from (TrainingOrigin); empty in files of before there was any.
    task: digest of the task it was trained for (`task_digest`), and ready the answer to it; empty
    and None in files of before they were kept.
    """

    round: int
    method: str
    local: LocalStart
    trained: Adapter
    version: bytes = b""
    task: bytes = b""
    ready: Ready | None = None

    def answer_to(self, task: TrainTask) -> Ready | None:
        """Return the answer to `task` if this is its update: a coordinator may ask twice."""
        return self.ready if self.task == task_digest(task) else None

    def limited_to(self, kept: frozenset[int]) -> HeldUpdate | None:
        """Return the update of these modules alone; None if it has none of them."""
        local = self.local
        places = tuple(i for i, module in enumerate(local.modules) if module in kept)
        if not places:
            return None
        start, trained = modules.select(local.adapter, places), modules.select(self.trained, places)
        chosen = tuple(local.modules[i] for i in places)
        return replace(self, local=replace(local, adapter=start, modules=chosen), trained=trained)

    def last_exchange(self, exchange: int) -> bool:
        """Return True if nothing of this update is asked for after that exchange."""
        return exchange >= methods.get(self.method).traits.exchanges


@dataclass(frozen=True, slots=True)
class UpdateSummary:
    """The update that a report carries: its tensors, and its L2 norm before any mask."""

    manifest: Manifest
    norm: float


@dataclass(frozen=True, slots=True)
class RoundStep:
    """The next thing to do: `work` if there is any, else store `marks`, then send `answer`.

    answer: None where there is nothing to say. upload: set when an update is handed to the
    exchange that asks for it. complaint: why a task was declined, in words for the owner alone.
    """

    answer: Answer | None = None
    work: Work | None = None
    marks: tuple[Mark, ...] = ()
    upload: UpdateSummary | None = None
    complaint: str | None = None


def declined(round_number: int, reason: Reason, complaint: str | None = None) -> RoundStep:
    """Decline in a fixed word; `complaint` tells the owner more."""
    return RoundStep(decline(round_number, reason), complaint=complaint)
