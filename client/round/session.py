"""The volunteer's side of a round, without I/O: what a message asks for and what may be answered.

A round has two halves (docs/protocol.md §4). In the first a volunteer trains, and the update stays
on its machine; it says no more than that it is ready. In the second a short aggregation among those
who are ready asks for the update, in the open or under masks. So whoever vanishes during the hours
of training costs the others nothing, and an update can wait across restarts of either side.

A session takes typed messages and returns steps: an answer, or work to be done before there is one.

    session = RoundSession("ada", base_hash, TaskLimits())
    step = session.receive(task)               # raises RemoteProtocolError: refuse, nothing leaves
    if isinstance(step.work, TrainWork):
        ready = session.trained(step.work, train(step.work))     # or session.failed(step.work)
        store(session.held); send(ready)
    else:
        store(step.marks); send(step.answer)

TRANSITIONS (phases.py) holds every move, others are our own error; _HANDLERS what may be asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from nomoat.aggregation import methods
from nomoat.aggregation.errors import LocalProtocolError, RemoteProtocolError
from nomoat.aggregation.protocol.adapter import Adapter, Vector, as_bytes
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
from nomoat.aggregation.protocol.wire import COORDINATOR
from nomoat.aggregation.secagg.diary import Mark, Place
from nomoat.aggregation.secagg.messages import TO_VOLUNTEER, SessionOffer, ToVolunteer
from nomoat.aggregation.secagg.parameters import Terms
from nomoat.aggregation.secagg.transcript import to_bitmap, work_hash
from nomoat.aggregation.sums.fixed_point import Contribution
from nomoat.client.round.masked_session import MaskedSession, Membership
from nomoat.client.round.phases import TRANSITIONS, TrainingFailed, VolunteerPhase
from nomoat.client.round.task_checks import open_adapter, train_work
from nomoat.client.round.task_limits import TaskLimits
from nomoat.client.round.training_origin import TrainingOrigin
from nomoat.client.round.uploads import reply_vector, summary_of, upload_of
from nomoat.client.round.work import (
    EvaluateWork,
    HeldUpdate,
    Reason,
    Request,
    RoundStep,
    TrainWork,
    Work,
    as_told,
    decline,
    declined,
)
from nomoat.lora.training.train import Trained

# Measurements of one round: its candidate, and that of a coordinator that began it again.
CANDIDATES = 2


class RoundSession:
    """One volunteer in one community.

    name: its name in the roster. base_hash: content hash of the base model on this machine. held:
    the update an earlier process left on disk. masking: how it takes part in secure aggregation, or
    it reports in the open. origin: what it knows of its training; else all chance is announced.
    """

    def __init__(
        self,
        name: str,
        base_hash: bytes,
        limits: TaskLimits,
        held: HeldUpdate | None = None,
        masking: MaskedSession | None = None,
        origin: TrainingOrigin | None = None,
    ) -> None:
        self.name = name
        # Whatever an update of before a lost diary has been in, it enters nothing more (§19.5).
        self.held = held = None if masking is not None and masking.lost else held
        self.phase = VolunteerPhase.IDLE if held is None else VolunteerPhase.HOLDING
        self._base_hash = base_hash
        self._limits = limits
        self._masking = masking
        self._origin = origin or TrainingOrigin.announced(name)
        self._measured: tuple[int, frozenset[bytes]] = (0, frozenset())  # round, its tasks
        self._replies: dict[int, Vector] = {}  # exchange → what the exchange before gave

    def follow(self, limits: TaskLimits, membership: Membership) -> None:
        """Go on under these rules: the owner has changed them."""
        self._limits = limits
        if self._masking is not None:
            self._masking.membership = membership

    def receive(self, request: Request) -> RoundStep:
        """Answer a request, or say what must be done before the answer.

        Raises RemoteProtocolError for what a lying coordinator sends: refuse it, nothing leaves.
        """
        if type(request) in _OF_AN_UPDATE and self.phase is not VolunteerPhase.HOLDING:
            return declined(getattr(request, "round", 0), Reason.NOTHING_HELD)
        return _HANDLERS[type(request)](self, request)

    def trained(self, work: TrainWork, result: Trained) -> Ready:
        """Hold what training gave; the caller persists `held` before it sends the answer."""
        self._move(Trained)
        trained = Adapter(work.local.adapter.spec, result.vector)
        about = (work.task.round, work.task.method, work.local)
        ready = Ready(
            work.task.round,
            result.steps,
            result.tokens,
            as_told(result.first_loss),
            as_told(result.last_loss),
            result.seconds,
            work.local.adapter.spec.rank,
        )
        of = (work.version, task_digest(work.task), ready)
        self.held = HeldUpdate(*about, trained, *of)
        return ready

    def evaluated(
        self, work: EvaluateWork, loss: float, tokens: int, personal: float | None = None
    ) -> Evaluation:
        """Report measured losses, mean nats per token over `tokens`, as far as they are told."""
        told = None if personal is None else as_told(personal)
        return Evaluation(work.task.round, as_told(loss), tokens, told)

    def has_left(self, marks: tuple[Mark, ...]) -> bool:
        """Return True if the held update goes out for good with what these marks stand before."""
        sent = [mark.exchange for mark in marks if mark.kind == "masked"]
        return self.held is not None and any(map(self.held.last_exchange, sent))

    def failed(self, work: Work, *, diverged: bool = False) -> Decline:
        """Take back work that could not be done; the coordinator learns that, not why.

        diverged: the candidate has no finite loss, which is told: it is a measurement.
        """
        if isinstance(work, TrainWork):
            self._move(TrainingFailed)
            return decline(work.task.round, Reason.FAILED)
        return decline(work.task.round, Reason.DIVERGED if diverged else Reason.FAILED)

    def on_train_task(self, task: TrainTask) -> RoundStep:
        """Check a task against the owner's limits and say how to train it here."""
        if self.held is not None and task.round < self.held.round:
            return declined(task.round, Reason.STALE)
        adapter = open_adapter(task, self._base_hash, self._limits)
        if isinstance(adapter, RoundStep):
            return adapter
        if self._masking is not None and (why := self._masking.too_few_known()) is not None:
            return declined(task.round, Reason.UNSAFE, why)
        work = train_work(task, adapter, self._limits, self._origin)
        if isinstance(work, RoundStep):
            return work
        if self._masking is not None:
            place = Place(task.round, 1, work.version, adapter.digest, self._masking.now)
            marks = self._masking.find_again(place)
            if self._masking.spent(place):
                return RoundStep(decline(task.round, Reason.SPENT), marks=marks)
            self._masking.stop()
        return self._begin(task, work)

    def _begin(self, task: TrainTask, work: TrainWork) -> RoundStep:
        """Answer from what is held if it is this very task's, else begin to train."""
        ready = None if self.held is None else self.held.answer_to(task)
        if ready is not None and self.phase is VolunteerPhase.HOLDING:
            return RoundStep(ready)
        if (why := self._limits.may_train(task)) is not None:
            return declined(task.round, Reason.OVER_LIMITS, why)
        self._move(TrainTask)
        self._replies = {}
        return RoundStep(work=work)

    def on_evaluate_task(self, task: EvaluateTask) -> RoundStep:
        """Check a task against the owner's limits and say what to measure."""
        adapter = open_adapter(task, self._base_hash, self._limits)
        if isinstance(adapter, RoundStep):
            return adapter
        latest, measured = self._measured
        if task.round < latest or (self.held is not None and task.round < self.held.round):
            return declined(task.round, Reason.STALE)
        if not self._origin.is_present(adapter.digest, task.round):
            return declined(task.round, Reason.STALE)
        before = measured if task.round == latest else frozenset()
        measured = before | {task_digest(task)}  # other settings measure something else
        if len(measured) > CANDIDATES:
            return declined(task.round, Reason.OVER_LIMITS, "a round has one candidate to measure")
        if (why := self._limits.may_measure(task)) is not None:
            return declined(task.round, Reason.OVER_LIMITS, why)
        self._measured = task.round, measured
        return RoundStep(work=EvaluateWork(task, adapter))

    def on_report_request(self, request: ReportRequest) -> RoundStep:
        """Report in the open, where this volunteer does that."""
        if self._masking is not None and self._masking.membership.required:
            return declined(request.round, Reason.UNSAFE)
        held = self._held_for(request)
        if isinstance(held, RoundStep):
            return held
        reply = reply_vector(request.reply) if request.reply else None
        vector = self.upload(held, request.exchange, reply, 0.0)
        report = Report(request.round, request.exchange, 1.0, as_bytes(vector))
        return RoundStep(report, upload=summary_of(held, request.exchange, vector))

    def on_exchange_reply(self, request: ExchangeReply) -> RoundStep:
        """Note what the exchange before gave; the next upload is computed from it."""
        if self._masking is None:
            return declined(request.round, Reason.UNSAFE)
        held = self._held_for(request)
        if isinstance(held, RoundStep):
            return held
        self._replies = {request.exchange: reply_vector(request.reply)}
        return RoundStep(Noted(request.round))

    def on_offer(self, offer: SessionOffer) -> RoundStep:
        """Join the offered session of secure aggregation with the held update."""
        if self._masking is None:
            return declined(offer.round, Reason.UNSAFE)
        held = self._held_for(offer)
        if isinstance(held, RoundStep):
            return held
        reply, clip_l2 = self._replies.get(offer.exchange), offer.clip_l2
        vector = self.upload(held, offer.exchange, reply, clip_l2)
        terms = self._terms(self._masking, held, offer.exchange)

        def limited(modules: frozenset[int]) -> Contribution:
            if (part := held.limited_to(modules)) is None:
                return Contribution(np.zeros_like(vector))
            return Contribution(self.upload(part, offer.exchange, reply, clip_l2))

        answer, marks = self._masking.open(offer, terms, vector, limited)
        upload = summary_of(held, offer.exchange, vector)
        return RoundStep(answer or Noted(0), marks=marks, upload=upload)

    def on_masked_message(self, message: ToVolunteer) -> RoundStep:
        """Pass on a message of the session that was joined."""
        if self._masking is None:
            return declined(getattr(message, "round", 0), Reason.UNSAFE)
        answer, marks = self._masking.receive(message)
        return RoundStep(answer or Noted(0), marks=marks)

    def _held_for(
        self, request: ReportRequest | ExchangeReply | SessionOffer
    ) -> HeldUpdate | RoundStep:
        held = self.held
        if held is None or request.round != held.round:
            return declined(request.round, Reason.NOTHING_HELD)
        if request.adapter_hash != held.local.broadcast.digest:
            return declined(request.round, Reason.STALE)
        # An exchange the method does not have would sum the same update once more: two sums over
        # almost the same volunteers differ by one volunteer's update.
        if request.exchange > methods.get(held.method).traits.exchanges:
            raise RemoteProtocolError(COORDINATOR, "§4", f"{held.method} has no such exchange")
        return held

    def upload(
        self, held: HeldUpdate, exchange: int, reply: Vector | None, clip_l2: float
    ) -> Vector:
        """Return the vector that an exchange sums of the held update, as upload_of has it."""
        return upload_of(held, exchange, reply, clip_l2)

    def _terms(self, masking: MaskedSession, held: HeldUpdate, exchange: int) -> Terms:
        """The round as this machine knows it by itself: an offer must agree with it."""
        broadcast, member = held.local.broadcast, masking.membership
        manifest = methods.get(held.method).manifest(broadcast.spec, held.round, exchange)
        reply = self._replies.get(exchange)
        return Terms(
            held.round,
            exchange,
            self._base_hash,
            broadcast.digest,
            manifest,
            member.roster(),
            member.known(),
            held.version,
            masking.now,
            work_hash(held.task, b"" if reply is None else as_bytes(reply)),
            held.version if self._origin.signed else b"",
            to_bitmap(held.local.modules, broadcast.spec.rank),
        )

    def _move(self, event: type) -> None:
        if (self.phase, event) not in TRANSITIONS:
            raise LocalProtocolError(f"{event.__name__} while {self.phase.value}")
        self.phase = TRANSITIONS[self.phase, event]


_Handler: TypeAlias = Callable[[RoundSession, Any], RoundStep]
_OF_AN_UPDATE = frozenset({ReportRequest, ExchangeReply, *TO_VOLUNTEER})
_HANDLERS: Mapping[type, _Handler] = {
    **dict.fromkeys(TO_VOLUNTEER, RoundSession.on_masked_message),
    TrainTask: RoundSession.on_train_task,
    EvaluateTask: RoundSession.on_evaluate_task,
    ReportRequest: RoundSession.on_report_request,
    ExchangeReply: RoundSession.on_exchange_reply,
    SessionOffer: RoundSession.on_offer,
}
