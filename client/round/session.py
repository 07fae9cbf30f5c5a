"""The volunteer's side of a round, without I/O: what a message asks for and what may be answered.

A session takes typed messages and returns either an answer or the work that must be done first;
the shell (app.py) does the work and brings back the result. Training ends with "ready"; the update
itself waits, held on this machine, until a short aggregation asks for it (docs/protocol.md §4).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import TypeAlias, get_args

import numpy as np

from nomoat.aggregation import methods
from nomoat.aggregation.errors import LocalProtocolError, RemoteProtocolError, UsageError
from nomoat.aggregation.methods.base import LocalRound, LocalStart
from nomoat.aggregation.methods.composition import Personal
from nomoat.aggregation.protocol.adapter import Adapter, Manifest, Vector, as_bytes, as_vector
from nomoat.aggregation.protocol.messages import (
    MAX_RANK,
    Decline,
    EvaluateTask,
    Evaluation,
    ExchangeReply,
    Noted,
    Ready,
    Report,
    ReportRequest,
    TrainSettings,
    TrainTask,
)
from nomoat.aggregation.protocol.wire import COORDINATOR
from nomoat.aggregation.secagg.messages import TO_VOLUNTEER, SessionOffer, ToVolunteer
from nomoat.aggregation.secagg.parameters import Terms
from nomoat.client.round.masked_session import MaskedAnswer, MaskedSession
from nomoat.lora.training.train import Trained

Request: TypeAlias = TrainTask | ReportRequest | EvaluateTask | ExchangeReply | ToVolunteer
Answer: TypeAlias = Ready | Report | Evaluation | Decline | Noted


class Reason(StrEnum):
    """Why a volunteer declines: fixed words, so that nothing of its machine leaks through them."""

    OTHER_BASE = "base model differs"
    OVER_LIMITS = "settings exceed my limits"
    STALE = "stale round"
    NOTHING_HELD = "nothing held for this round"
    MALFORMED = "malformed request"
    FAILED = "work failed"
    PAUSED = "paused"
    UNSAFE = "unsafe request refused"


def decline(round_number: int, reason: Reason) -> Decline:
    """A Decline in one of the fixed words: their plain text, which is what the wire takes."""
    return Decline(round_number, reason.value)


def seed_from_announced(announced: bytes, name: str, round_number: int) -> bytes:
    """32 bytes for one volunteer's training in one round, from the seed announced to everyone."""
    label = b"nomoat volunteer\0" + round_number.to_bytes(4, "big")
    return hashlib.sha256(label + announced + name.encode()).digest()


class VolunteerPhase(Enum):
    """Where this volunteer stands between two messages."""

    IDLE = "idle"
    TRAINING = "training"
    HOLDING = "holding"


@dataclass(frozen=True, slots=True)
class TaskLimits:
    """The most a coordinator may ask of this machine, set by its owner."""

    max_steps: int = 10_000
    max_tokens_per_step: int = 1 << 20
    max_adapter_values: int = 1 << 28
    max_epochs: int = 10  # when asked for passes over the data instead of steps
    rank: int = MAX_RANK  # modules this machine trains at most

    def allow(self, settings: TrainSettings, adapter_values: int) -> bool:
        """Whether a request stays inside all limits; a personal adapter is as much work again."""
        times = 2 if settings.personal == "adapter" else 1
        return (
            times * settings.local_steps <= self.max_steps
            and times * settings.local_epochs <= self.max_epochs
            and settings.batch_size * settings.seq_len <= self.max_tokens_per_step
            and adapter_values <= self.max_adapter_values
        )


@dataclass(frozen=True, slots=True)
class TrainWork:
    """Train `local.adapter`; `seed` is this volunteer's own for this round."""

    task: TrainTask
    local: LocalStart
    seed: bytes


@dataclass(frozen=True, slots=True)
class EvaluateWork:
    """Measure `adapter` on this volunteer's held-out rows."""

    task: EvaluateTask
    adapter: Adapter


Work: TypeAlias = TrainWork | EvaluateWork


@dataclass(frozen=True)
class HeldUpdate:
    """An update that waits for its aggregation: where training started, where it ended."""

    round: int
    method: str
    local: LocalStart
    trained: Adapter
    weight: float


# (phase, what happened) → phase. What is not here is a protocol error or declined.
TRANSITIONS: dict[tuple[VolunteerPhase, type], VolunteerPhase] = {
    (VolunteerPhase.IDLE, TrainTask): VolunteerPhase.TRAINING,
    (VolunteerPhase.HOLDING, TrainTask): VolunteerPhase.TRAINING,
    (
        VolunteerPhase.TRAINING,
        TrainTask,
    ): VolunteerPhase.TRAINING,  # a new round overtakes one cut short
    (VolunteerPhase.TRAINING, Trained): VolunteerPhase.HOLDING,
    (VolunteerPhase.HOLDING, ReportRequest): VolunteerPhase.HOLDING,
    (VolunteerPhase.IDLE, EvaluateTask): VolunteerPhase.IDLE,
    (VolunteerPhase.HOLDING, EvaluateTask): VolunteerPhase.HOLDING,
    (VolunteerPhase.TRAINING, EvaluateTask): VolunteerPhase.TRAINING,
    **{
        (VolunteerPhase.HOLDING, kind): VolunteerPhase.HOLDING
        for kind in (ExchangeReply, *TO_VOLUNTEER)
    },
}


class RoundSession:
    """One volunteer in one community.

    name: its name in the roster. base_hash: content hash of the base model on this machine.
    held: what an earlier process left on disk, if anything. masking: how it takes part in secure
    aggregation; without it, it only ever reports in the open. training_seed: a task → the 32 bytes
    that all chance of its training is drawn from.
    """

    def __init__(
        self,
        name: str,
        base_hash: bytes,
        limits: TaskLimits,
        held: HeldUpdate | None = None,
        masking: MaskedSession | None = None,
        training_seed: Callable[[TrainTask], bytes] | None = None,
    ) -> None:
        self.name = name
        self._training_seed = training_seed or self._from_announced
        self._base_hash = base_hash
        self._limits = limits
        self._masking = masking
        self._replies: dict[int, Vector] = {}  # exchange → what the exchange before gave
        self.held = held
        self.uploaded: tuple[Manifest, float] | None = None  # the last upload: tensors, L2 norm
        self.complaint: str | None = None  # why the last training was declined, for the owner alone
        self.phase = VolunteerPhase.IDLE if held is None else VolunteerPhase.HOLDING

    def receive(self, request: Request) -> Answer | Work | MaskedAnswer:
        """Answer a request, or say what must be done before the answer.

        Raises RemoteProtocolError for what a lying coordinator sends: refuse it, nothing leaves.
        """
        if (self.phase, type(request)) not in TRANSITIONS:
            return decline(getattr(request, "round", 0), Reason.NOTHING_HELD)
        if isinstance(request, TrainTask):
            return self._train(request)
        if isinstance(request, EvaluateTask):
            return self._evaluate(request)
        if isinstance(request, ReportRequest):
            return self._report(request)
        return self._take_part(request)

    def trained(self, work: TrainWork, result: Trained) -> Ready:
        """Hold what training gave; the caller persists `held` before it sends the answer."""
        self._move(Trained)
        weight = min(result.tokens, work.task.settings.weight_cap) / work.task.settings.weight_cap
        trained = Adapter(work.local.adapter.spec, result.vector)
        self.held = HeldUpdate(work.task.round, work.task.method, work.local, trained, weight)
        return Ready(
            work.task.round,
            result.steps,
            result.tokens,
            result.first_loss,
            result.last_loss,
            result.seconds,
            work.local.adapter.spec.rank,
        )

    def evaluated(
        self, work: EvaluateWork, loss: float, tokens: int, personal: float | None = None
    ) -> Evaluation:
        """Report measured losses, mean nats per token over `tokens`."""
        return Evaluation(work.task.round, loss, tokens, personal)

    def failed(self, work: Work) -> Decline:
        """The work could not be done; the coordinator learns that, not why."""
        if isinstance(work, TrainWork) and self.phase is VolunteerPhase.TRAINING:
            self.phase = VolunteerPhase.IDLE if self.held is None else VolunteerPhase.HOLDING
        return decline(work.task.round, Reason.FAILED)

    def _from_announced(self, task: TrainTask) -> bytes:
        return seed_from_announced(task.seed, self.name, task.round)

    def _train(self, task: TrainTask) -> Answer | Work:
        self.complaint = None
        if self.held is not None and task.round < self.held.round:
            return decline(task.round, Reason.STALE)
        adapter = self._open(task)
        if isinstance(adapter, Decline):
            return adapter
        seed = self._training_seed(task)
        rank = min(self._limits.rank, task.trainable_rank)
        try:
            method = methods.get(task.method)
            if rank < task.trainable_rank and not method.traits.mixed_ranks:
                self.complaint = (
                    f"{task.method} needs all {task.trainable_rank} modules trained by everyone, "
                    f"here at most {rank} are: set another rank in settings.toml, or leave"
                )
                return decline(task.round, Reason.OVER_LIMITS)
            local = method.start(adapter, LocalRound(task.round, rank, seed))
        except (UsageError, LocalProtocolError):
            return decline(task.round, Reason.MALFORMED)
        self._move(TrainTask)
        self._replies = {}
        if self._masking is not None:
            self._masking.stop()
            self._masking.forget_before(task.round)
        return TrainWork(task, local, seed)

    def _evaluate(self, task: EvaluateTask) -> Answer | Work:
        adapter = self._open(task)
        return adapter if isinstance(adapter, Decline) else EvaluateWork(task, adapter)

    def _report(self, request: ReportRequest) -> Answer:
        if self._masking is not None and self._masking.membership.required:
            return decline(request.round, Reason.UNSAFE)
        held = self._held_for(request)
        if isinstance(held, Decline):
            return held
        reply = _reply_vector(request.reply) if request.reply else None
        vector = self._upload(held, request.exchange, reply)
        return Report(request.round, request.exchange, held.weight, as_bytes(vector))

    def _take_part(self, request: ExchangeReply | ToVolunteer) -> Answer | MaskedAnswer:
        """A message of secure aggregation."""
        if self._masking is None:
            return decline(getattr(request, "round", 0), Reason.UNSAFE)
        if not isinstance(request, ExchangeReply | SessionOffer):
            return self._masking.receive(request)
        held = self._held_for(request)
        if isinstance(held, Decline):
            return held
        if isinstance(request, ExchangeReply):
            self._replies = {request.exchange: _reply_vector(request.reply)}
            return Noted(request.round)
        vector = self._upload(held, request.exchange, self._replies.get(request.exchange))
        return self._masking.open(request, self._terms(held, request.exchange), vector, held.weight)

    def _held_for(
        self, request: ReportRequest | ExchangeReply | SessionOffer
    ) -> HeldUpdate | Decline:
        held = self.held
        if held is None or request.round != held.round:
            return decline(request.round, Reason.NOTHING_HELD)
        if request.adapter_hash != held.local.broadcast.digest:
            return decline(request.round, Reason.STALE)
        # An exchange the method does not have would sum the same update once more: two sums over
        # almost the same volunteers differ by one volunteer's update.
        if request.exchange > methods.get(held.method).traits.exchanges:
            raise RemoteProtocolError(COORDINATOR, "§4", f"{held.method} has no such exchange")
        return held

    def _upload(self, held: HeldUpdate, exchange: int, reply: Vector | None) -> Vector:
        method = methods.get(held.method)
        try:
            vector = method.upload(held.local, held.trained, held.round, exchange, reply)
            manifest = method.manifest(held.local.broadcast.spec, held.round, exchange)
            self.uploaded = manifest, float(np.linalg.norm(vector))
            return vector
        except LocalProtocolError as problem:  # no reply, or one of another size
            raise RemoteProtocolError(COORDINATOR, "§4", str(problem)) from None

    def _terms(self, held: HeldUpdate, exchange: int) -> Terms:
        """What this machine knows of the round by itself: an offer must agree with it."""
        assert self._masking is not None
        broadcast = held.local.broadcast
        manifest = methods.get(held.method).manifest(broadcast.spec, held.round, exchange)
        roster = self._masking.membership.roster()
        return Terms(held.round, exchange, self._base_hash, broadcast.digest, manifest, roster)

    def _open(self, task: TrainTask | EvaluateTask) -> Adapter | Decline:
        """The adapter a task carries, once its base, size and settings are what we allow."""
        if task.base_hash != self._base_hash:
            return decline(task.round, Reason.OTHER_BASE)
        try:
            adapter = task.shape.open(task.adapter)
        except LocalProtocolError:
            return decline(task.round, Reason.MALFORMED)
        if task.settings.personal not in get_args(Personal):
            return decline(task.round, Reason.MALFORMED)
        if not self._limits.allow(task.settings, adapter.spec.size):
            self.complaint = "the round asks for more than max_* in settings.toml allow"
            return decline(task.round, Reason.OVER_LIMITS)
        return adapter

    def _move(self, event: type) -> None:
        if (self.phase, event) not in TRANSITIONS:
            raise LocalProtocolError(f"{event.__name__} while {self.phase.value}")
        self.phase = TRANSITIONS[self.phase, event]


def _reply_vector(data: bytes) -> Vector:
    """What the coordinator made of the exchange before; RemoteProtocolError if it is no vector."""
    try:
        vector = as_vector(data)
    except LocalProtocolError as problem:
        raise RemoteProtocolError(COORDINATOR, "§4", str(problem)) from None
    if not np.isfinite(vector).all():
        raise RemoteProtocolError(COORDINATOR, "§4", "the reply has values that are not finite")
    return vector
