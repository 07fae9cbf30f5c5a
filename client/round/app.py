"""The volunteer as a Flower ClientApp: bytes in, bytes out; decisions are session.py's.

Only the actions registered here exist; whatever else a coordinator sends is answered with a
refusal. Nothing in a message is ever a path, a module name or code.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from nomoat.aggregation.errors import NomoatError, RemoteProtocolError
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.messages import (
    EvaluateTask,
    ExchangeReply,
    Noted,
    ReportRequest,
    TrainTask,
)
from nomoat.aggregation.protocol.wire import COORDINATOR
from nomoat.aggregation.secagg.messages import TO_VOLUNTEER, ToCoordinator
from nomoat.aggregation.secagg.parameters import Mark
from nomoat.client.round.masked_session import MaskedAnswer
from nomoat.client.round.session import (
    Answer,
    EvaluateWork,
    HeldUpdate,
    Reason,
    Request,
    RoundSession,
    TrainWork,
    Work,
    decline,
)
from nomoat.flower.packets import packet_of, to_reply
from nomoat.lora.training.train import Trained

log = logging.getLogger(__name__)


class RoundTrainer(Protocol):
    """Whoever trains and evaluates for this volunteer (a worker process, elsewhere)."""

    def train(self, work: TrainWork) -> Trained:
        """Train; NomoatError if it cannot be done."""

    def evaluate(self, work: EvaluateWork) -> tuple[float, int, float | None]:
        """(mean nats per token, tokens, loss with what is kept here); NomoatError if it cannot."""


class UpdateStore(Protocol):
    """Where an update is kept until it is asked for."""

    def save(self, held: HeldUpdate) -> None:
        """Keep `held`; when this returns it survives whatever the vault promises to survive."""

    def mark(self, marks: tuple[Mark, ...]) -> None:
        """Keep marks of secure aggregation; the answer they belong to is sent after this."""


@dataclass(frozen=True)
class RequestHandler:
    """One volunteer's session and the hands it works with."""

    session: RoundSession
    trainer: RoundTrainer
    store: UpdateStore

    def answer(self, request: Request) -> Answer | ToCoordinator:
        """Do what `request` asks, within the session's rules."""
        try:
            step = self.session.receive(request)
        except RemoteProtocolError as problem:
            log.warning("%s: refused: %s", self.session.name, problem)
            return decline(getattr(request, "round", 0), Reason.UNSAFE)
        if isinstance(step, MaskedAnswer):
            self.store.mark(step.marks)
            return Noted(0) if step.answer is None else step.answer
        try:
            if isinstance(step, TrainWork):
                ready = self.session.trained(step, self.trainer.train(step))
                assert self.session.held is not None
                self.store.save(self.session.held)
                return ready
            if isinstance(step, EvaluateWork):
                return self.session.evaluated(step, *self.trainer.evaluate(step))
        except NomoatError as problem:
            log.warning("%s: %s", self.session.name, problem)
            assert isinstance(step, Work)
            return self.session.failed(step)
        return step


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
        getattr(app, category)(name)(_handler(find, kind))
    return app


def _handler(find: Find, kind: type) -> Callable[[Message, Context], Message]:
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
    except Exception:  # exception text never leaves this machine
        log.exception("answering %s failed", message.metadata.message_type)
        return wire.encode(decline(0, Reason.FAILED))
