"""Volunteers that vanish: which messages of a round find nobody at home, drawn from a seed."""

from __future__ import annotations

from dataclasses import dataclass

from nomoat.server.rounds.cohort import generator, round_seed


@dataclass(frozen=True)
class Dropout:
    """Each volunteer vanishes from a round with a probability, before training or after it.

    Drawn from (seed, round, volunteer), so the order of messages does not matter. Held-out losses
    are measured of everyone, to keep rounds comparable.
    """

    seed: bytes
    probability: float

    def __call__(self, volunteer: str, message_type: str, group: str) -> bool:
        """True if this volunteer does not answer a message of this type in round `group`."""
        if self.probability == 0 or message_type.startswith("evaluate"):
            return False
        draw = generator(round_seed(self.seed, volunteer, int(group))).random(2)
        after_training = draw[1] < 0.5
        return bool(draw[0] < self.probability) and not (
            after_training and message_type == "train.local"
        )
