"""The phases of a volunteer in a round, and every move between them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from nomoat.aggregation.protocol.messages import TrainTask
from nomoat.lora.training.train import Trained


class VolunteerPhase(Enum):
    """A volunteer's standing between two messages."""

    IDLE = "idle"
    TRAINING = "training"
    HOLDING = "holding"
    RETRAINING = "training, an earlier update held"


class TrainingFailed:
    """The event that training, or storing what it gave, could not be done."""


TRANSITIONS: Mapping[tuple[VolunteerPhase, type], VolunteerPhase] = {
    (VolunteerPhase.IDLE, TrainTask): VolunteerPhase.TRAINING,
    (VolunteerPhase.HOLDING, TrainTask): VolunteerPhase.RETRAINING,
    # A new round overtakes one that was cut short.
    (VolunteerPhase.TRAINING, TrainTask): VolunteerPhase.TRAINING,
    (VolunteerPhase.RETRAINING, TrainTask): VolunteerPhase.RETRAINING,
    (VolunteerPhase.TRAINING, Trained): VolunteerPhase.HOLDING,
    (VolunteerPhase.RETRAINING, Trained): VolunteerPhase.HOLDING,
    (VolunteerPhase.TRAINING, TrainingFailed): VolunteerPhase.IDLE,
    (VolunteerPhase.RETRAINING, TrainingFailed): VolunteerPhase.HOLDING,
    (VolunteerPhase.HOLDING, TrainingFailed): VolunteerPhase.HOLDING,  # the disk was full
}
