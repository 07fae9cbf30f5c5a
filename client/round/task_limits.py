"""The most a coordinator may ask of this machine in one task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from nomoat.aggregation.protocol.messages import (
    MAX_RANK,
    EvaluateTask,
    TrainSettings,
    TrainTask,
)

# What a task asks for beyond what was agreed to, in words for the owner; None if nothing.
Agreed: TypeAlias = Callable[[TrainTask | EvaluateTask], str | None]
# Why this work may not begin now, in words for the owner; None if it may, and then it counts.
MayTrain: TypeAlias = Callable[[TrainTask], str | None]
MayMeasure: TypeAlias = Callable[[EvaluateTask], str | None]


def anything(_asked: object) -> None:
    """Agree to whatever is asked."""


@dataclass(frozen=True, slots=True)
class TaskLimits:
    """The owner's limits. max_epochs: when a task asks for passes over the data, not for steps.

    rank: modules of the adapter that this machine trains at most. agreed: the consent, task by
    task; may_train, may_measure: and over time.
    """

    max_steps: int = 10_000
    max_tokens_per_step: int = 1 << 20
    max_adapter_values: int = 1 << 28
    max_epochs: int = 10
    rank: int = MAX_RANK
    agreed: Agreed = anything
    may_train: MayTrain = anything
    may_measure: MayMeasure = anything

    def allow(self, settings: TrainSettings, adapter_values: int) -> bool:
        """Return True if a task stays inside all limits; a personal adapter doubles its work."""
        times = 2 if settings.personal == "adapter" else 1
        return (
            times * settings.local_steps <= self.max_steps
            and times * settings.local_epochs <= self.max_epochs
            and settings.batch_size * settings.seq_len <= self.max_tokens_per_step
            and adapter_values <= self.max_adapter_values
        )
