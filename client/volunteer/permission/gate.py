"""Declines work that may not begin now: the owner's limits forbid it, or new terms wait."""

from __future__ import annotations

from flwr.app import Context, Message

from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.messages import EvaluateTask, TrainTask
from nomoat.client.machine.governor import Governor
from nomoat.client.membership.terms.renewal import TermsWatch
from nomoat.client.round.sealed_app import App
from nomoat.client.round.work import Reason, decline
from nomoat.client.volunteer.own_rules import RulesWatch
from nomoat.flower.packets import to_reply

TRAIN = wire.action_of(wire.kind_of(TrainTask))
WORK = frozenset({TRAIN, wire.action_of(wire.kind_of(EvaluateTask))})


def governed(app: App, governor: Governor, terms: TermsWatch) -> App:
    """`app`, except that work which may not begin now is declined, so that nobody waits for it."""

    def answer(message: Message, context: Context) -> Message:
        kind = message.metadata.message_type
        forbidden = terms.waiting or not governor.may_begin(training=kind == TRAIN)
        if kind in WORK and forbidden:
            return to_reply(wire.encode(decline(0, Reason.PAUSED)), message)
        return app(message, context)

    return answer


def following(app: App, rules: RulesWatch) -> App:
    """`app`, under the rules its owner has set by the time work is asked for."""

    def answer(message: Message, context: Context) -> Message:
        if message.metadata.message_type in WORK:
            rules.look()
        return app(message, context)

    return answer
