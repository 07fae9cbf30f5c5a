"""The volunteer as a Flower ClientApp: bytes in, bytes out; decisions are session.py's.

Flower calls one function for each type of message, with the message and a context. Every function
registered here does the same: decode (the only place where bytes of the coordinator become
values), ask the session, do the work it names, store what must survive a crash, encode the answer.
Only the actions registered here exist; whatever else a coordinator sends is answered with a
refusal. Nothing in a message is ever a path, a module name or code, and no exception's text leaves.

    handler = RequestHandler(RoundSession(…), trainer, DiskUpdateStore(folder))
    app = volunteer_app(lambda context: handler)
    reply = app(message, context)        # what the connection, or a simulation's grid, calls
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from nomoat.aggregation.errors import Diverged, NomoatError, RemoteProtocolError
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.messages import (
    EvaluateTask,
    ExchangeReply,
    Report,
    ReportRequest,
    TrainTask,
)
from nomoat.aggregation.protocol.wire import COORDINATOR
from nomoat.aggregation.secagg.diary import Mark
from nomoat.aggregation.secagg.messages import TO_VOLUNTEER, MaskedReport
from nomoat.client.round.observer import RoundObserver
from nomoat.client.round.session import RoundSession
from nomoat.client.round.work import (
    Answer,
    EvaluateWork,
    HeldUpdate,
    Overtaken,
    Reason,
    Request,
    RoundStep,
    TrainWork,
    Work,
    decline,
)
from nomoat.flower.packets import packet_of, to_reply
from nomoat.lora.training.train import Trained

log = logging.getLogger(__name__)


class RoundTrainer(Protocol):
    """A port: trains and evaluates for this volunteer (a worker process, elsewhere)."""

    def train(self, work: TrainWork) -> Trained:
        """Train; NomoatError if it cannot be done, Overtaken if nobody waits for it any more."""

    def evaluate(self, work: EvaluateWork) -> tuple[float, int, float | None]:
        """(mean nats per token, tokens, loss with what is kept here); NomoatError if it cannot."""


class UpdateStore(Protocol):
    """A port: keeps an update until it is asked for, and the marks of secure aggregation."""

    def save(self, held: HeldUpdate) -> None:
        """Keep `held`; when this returns it survives whatever the store promises to survive."""

    def mark(self, marks: tuple[Mark, ...]) -> None:
        """Keep marks; the answer they belong to is sent after this."""

    def drop(self) -> None:
        """Forget the update: it has left for good."""


@dataclass(frozen=True)
class RequestHandler:
    """One volunteer's session, and what it works with. observers: told of events as they happen."""

    session: RoundSession
    trainer: RoundTrainer
    store: UpdateStore
    observers: tuple[RoundObserver, ...] = ()

    def answer(self, request: Request) -> Answer:
        """Do what `request` asks, within the session's rules."""
        try:
            step = self.session.receive(request)
        except RemoteProtocolError as problem:
            log.warning("%s: refused: %s", self.session.name, problem)
            lie = str(problem)
            self._tell(lambda observer: observer.refused(lie))
            return decline(getattr(request, "round", 0), Reason.UNSAFE)
        if step.work is not None:
            return self._do(step.work)
        return self._give(step)

    def _give(self, step: RoundStep) -> Answer:
        assert step.answer is not None
        self._remember(step.marks)
        if (complaint := step.complaint) is not None:
            self._tell(lambda observer: observer.declined(complaint))
        if (upload := step.upload) is not None:
            self._tell(lambda observer: observer.uploading(upload))
        if isinstance(step.answer, Report | MaskedReport):
            self._tell(lambda observer: observer.reported())
        return step.answer

    def _remember(self, marks: tuple[Mark, ...]) -> None:
        """Store marks, and delete the update they put an end to.

        After a lost diary nobody knows where the stored update has been: it goes first, so that a
        crash in between cannot bring it back.
        """
        if any(mark.kind == "lost" for mark in marks):
            self.store.drop()
        self.store.mark(marks)
        if self.session.has_left(marks):
            self.store.drop()

    def _do(self, work: Work) -> Answer:
        self._tell(lambda observer: observer.begun(work))
        try:
            return self._train(work) if isinstance(work, TrainWork) else self._evaluate(work)
        except Overtaken as problem:
            log.info("%s: %s", self.session.name, problem)
        except NomoatError as problem:
            log.warning("%s: %s", self.session.name, problem)
            reason = str(problem)
            self._tell(lambda observer: observer.failed(work, reason))
            return self.session.failed(work, diverged=isinstance(problem, Diverged))
        return self.session.failed(work)

    def _train(self, work: TrainWork) -> Answer:
        ready = self.session.trained(work, self.trainer.train(work))
        assert self.session.held is not None
        self.store.save(self.session.held)
        self._tell(lambda observer: observer.trained())
        return ready

    def _evaluate(self, work: EvaluateWork) -> Answer:
        loss, tokens, personal = self.trainer.evaluate(work)
        self._tell(lambda observer: observer.measured(loss, personal))
        return self.session.evaluated(work, loss, tokens, personal)

    def _tell(self, event: Callable[[RoundObserver], None]) -> None:
        for observer in self.observers:
            event(observer)


Find: TypeAlias = Callable[[Context], RequestHandler]

ACTIONS: dict[str, type] = {
    wire.action_of(wire.kind_of(kind)): kind
    for kind in (TrainTask, ReportRequest, EvaluateTask, ExchangeReply, *TO_VOLUNTEER)
}


def volunteer_app(find: Find) -> ClientApp:
    """The ClientApp that serves the volunteer `find` names for a Flower context."""
    app = ClientApp()
    for action, kind in ACTIONS.items():
        category, name = action.split(".")
        getattr(app, category)(name)(_respond_to(find, kind))
    return app


def _respond_to(find: Find, kind: type) -> Callable[[Message, Context], Message]:
    def handle(message: Message, context: Context) -> Message:
        return to_reply(_respond(find, kind, message, context), message)

    return handle


def _respond(find: Find, kind: type, message: Message, context: Context) -> wire.Packet:
    try:
        request: Request = wire.decode(packet_of(message, COORDINATOR), kind, COORDINATOR)
        return wire.encode(find(context).answer(request))
    except RemoteProtocolError as problem:
        log.warning("refused: %s", problem)
        return wire.encode(decline(0, Reason.MALFORMED))
    except NomoatError as problem:  # a full disk, say: no bug, so a line is enough
        log.warning("answering %s failed: %s", message.metadata.message_type, problem)
        return wire.encode(decline(0, Reason.FAILED))
    except Exception:  # exception text never leaves this machine
        log.exception("answering %s failed", message.metadata.message_type)
        return wire.encode(decline(0, Reason.FAILED))
