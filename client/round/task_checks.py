"""Tasks checked against this machine before any work begins: its base model, its owner's limits."""

from __future__ import annotations

from typing import get_args

from nomoat.aggregation import methods
from nomoat.aggregation.errors import LocalProtocolError, UsageError
from nomoat.aggregation.methods.base import LocalRound
from nomoat.aggregation.methods.composition import Personal
from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.aggregation.protocol.messages import EvaluateTask, TrainTask
from nomoat.client.round.task_limits import TaskLimits
from nomoat.client.round.training_origin import TrainingOrigin
from nomoat.client.round.work import Reason, RoundStep, TrainWork, declined


def open_adapter(
    task: TrainTask | EvaluateTask, base_hash: bytes, limits: TaskLimits
) -> Adapter | RoundStep:
    """The adapter a task carries, once its base, size and settings are what we allow."""
    if task.base_hash != base_hash:
        return declined(task.round, Reason.OTHER_BASE)
    try:
        adapter = task.shape.open(task.adapter)
    except LocalProtocolError:
        return declined(task.round, Reason.MALFORMED)
    if task.settings.personal not in get_args(Personal):
        return declined(task.round, Reason.MALFORMED)
    if not limits.allow(task.settings, adapter.spec.size):
        why = "the round asks for more than max_* in settings.toml allow"
        return declined(task.round, Reason.OVER_LIMITS, why)
    if (more := limits.agreed(task)) is not None:
        return declined(task.round, Reason.OVER_LIMITS, more)
    return adapter


def train_work(
    task: TrainTask, adapter: Adapter, limits: TaskLimits, origin: TrainingOrigin
) -> TrainWork | RoundStep:
    """The work of a task: the modules this machine affords, its chance and version of `origin`."""
    rank = min(limits.rank, task.trainable_rank)
    try:
        method = methods.get(task.method)
        if rank < task.trainable_rank and not method.traits.mixed_ranks:
            return declined(
                task.round,
                Reason.OVER_LIMITS,
                f"{task.method} needs all {task.trainable_rank} modules trained by everyone, "
                f"here at most {rank} are: set another rank in settings.toml, or leave",
            )
        seed = origin.seed_of(task)
        local = method.start(adapter, LocalRound(task.round, rank, seed))
    except (UsageError, LocalProtocolError):
        return declined(task.round, Reason.MALFORMED)
    version = origin.version_of(adapter.digest, task.round)
    if version is None:
        return declined(task.round, Reason.STALE)
    return TrainWork(task, local, seed, version)
