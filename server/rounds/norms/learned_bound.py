"""A round's bound on the L2 norm of an update, from what the coordinator's own training moves.

How far a training moves the adapter depends on steps, learning rate and where the adapter stands,
and hardly on the rows: so rows of the coordinator's own tell it before any volunteer has said
anything, and no volunteer can say it for them. The training runs while volunteers train; of its
result the norm is kept, and nothing else.

    learner = BoundLearner(train, setting=None)
    bound = learner.begin(task, adapter, method)     # the training has begun
    bound.of_exchange(1, b"")                        # a NormBound, once it is done; None: no bound
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeAlias

from nomoat.aggregation.errors import NomoatError
from nomoat.aggregation.methods import AnyMethod
from nomoat.aggregation.methods.base import LocalRound, LocalStart, SummedMethod
from nomoat.aggregation.protocol.adapter import Adapter, Vector, as_vector
from nomoat.aggregation.protocol.messages import TrainTask
from nomoat.aggregation.sums.norm_bound import NormBound, norm_of

log = logging.getLogger(__name__)

# A task and the modules to train → the trained values of those modules, float32 (d,)
Train: TypeAlias = Callable[[TrainTask, LocalStart], Future[Vector]]


@dataclass
class BoundLearner:
    """Bounds for one round after the other. train: None without rows of the coordinator's own.

    setting: the bound to keep to instead, None to learn it.
    """

    train: Train | None
    setting: float | None = None
    _last: dict[tuple[int, str], float] = field(default_factory=dict)  # exchange, factors → limit

    def begin(self, task: TrainTask, adapter: Adapter, method: AnyMethod) -> RoundBound | None:
        """Begin the training of a round, if it needs one; None: updates have no bound."""
        if not isinstance(method, SummedMethod) or not (self.setting or self.train):
            return None
        local = method.start(adapter, LocalRound(task.round, task.trainable_rank, task.seed))
        training = None if self.setting or not self.train else self.train(task, local)
        return RoundBound(self, method, local, task.round, training)

    def limit(self, bound: RoundBound, exchange: int, reply: bytes) -> float | None:
        """The limit of an exchange; the last one known if this round's training failed."""
        if self.setting is not None:
            return self.setting
        key = exchange, bound.method.factors(bound.round).key
        try:
            self._last[key] = bound.own_norm(exchange, reply)
        except NomoatError as problem:
            log.warning("no bound was learned in round %s: %s", bound.round, problem)
        return self._last.get(key)


@dataclass(frozen=True)
class RoundBound:
    """The bound of one round's exchanges, as soon as the coordinator's own training is done."""

    learner: BoundLearner
    method: SummedMethod
    local: LocalStart
    round: int
    training: Future[Vector] | None

    def of_exchange(self, exchange: int, reply: bytes) -> NormBound | None:
        """The bound of an exchange, given the reply to the one before; waits for the training."""
        limit = self.learner.limit(self, exchange, reply)
        size = self.method.bounded(self.local.broadcast.spec, self.round, exchange)
        return NormBound(limit, size) if limit else None

    def own_norm(self, exchange: int, reply: bytes) -> float:
        """The norm of what the coordinator itself would report; NomoatError if it cannot."""
        assert self.training is not None
        trained = Adapter(self.local.adapter.spec, self.training.result())
        last = as_vector(reply) if reply else None
        vector = self.method.upload(self.local, trained, self.round, exchange, last)
        size = self.method.bounded(self.local.broadcast.spec, self.round, exchange)
        return norm_of(vector[:size])
