"""A step of a training as it is told while the training goes on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TrainingStep:
    """Step `step` of `steps` was taken. loss: of it, nats per token; seconds: spent so far."""

    step: int
    steps: int
    loss: float
    seconds: float
