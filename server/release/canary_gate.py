"""The gate: a version that gives a planted secret away, or would no longer say what it should.

Secrets by their exposure in bits (lora/canaries/exposure.py): above `bits` the adapter has learnt
the phrase, unless the base alone says it as readily. Answers by their log-probability, in nats:

    fall = the best of the versions before − this one's      found if fall > fall_nats + spare
    spare = min(fall_nats, 3 σ)                            σ: of its changes from version to version

σ is their standard deviation, of at least `FEWEST`: rounds move every answer a little. Since the
best is of all versions, and not of the last, many small steps add up to a fall, and steps that are
alike are no noise; since spare is bounded, no wandering makes room for more than twice `fall_nats`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

FAR = 3.0
FEWEST = 4  # changes, below which nothing is known of them


@dataclass(frozen=True, slots=True)
class CanaryRule:
    """bits: of exposure, at most. fall_nats: of an answer's log-probability, at most."""

    bits: float
    fall_nats: float


@dataclass(frozen=True, slots=True)
class SecretReading:
    """A secret's exposure in bits. base: with the base alone, where that was measured."""

    bits: float
    base: float | None = None


@dataclass(frozen=True, slots=True)
class AnswerReading:
    """An answer's log-probabilities, nats. before: of accepted versions, oldest first."""

    now: float
    before: Sequence[float]

    @property
    def fall(self) -> float:
        """From the best before; infinite if nothing was to be computed."""
        finite = [one for one in self.before if math.isfinite(one)]
        if not math.isfinite(self.now):
            return math.inf
        return max(finite) - self.now if finite else 0.0

    @property
    def noise(self) -> float:
        """σ of its changes, 0 where there are too few."""
        finite = [one for one in self.before if math.isfinite(one)]
        changes = [later - earlier for earlier, later in pairwise(finite)]
        return statistics.stdev(changes) if len(changes) >= FEWEST else 0.0


def given_away(reading: SecretReading, rule: CanaryRule) -> bool:
    """Tell whether training has taught the adapter a secret."""
    if reading.bits <= rule.bits:
        return False
    return reading.base is None or reading.base <= rule.bits


def fallen(reading: AnswerReading, rule: CanaryRule) -> bool:
    """Tell whether an answer has become too improbable."""
    return reading.fall > rule.fall_nats + min(rule.fall_nats, FAR * reading.noise)


def faults(
    secrets: Mapping[str, SecretReading], answers: Mapping[str, AnswerReading], rule: CanaryRule
) -> tuple[str, ...]:
    """Return what holds a version, worst first, each by the name it has in the arguments."""
    out = {
        f"{name} is given away ({one.bits:.1f} bits, {rule.bits:g} allowed)": one.bits / rule.bits
        for name, one in secrets.items()
        if given_away(one, rule)
    }
    out |= {
        f"{name} fell by {one.fall:.1f} nats ({rule.fall_nats:g} allowed)": one.fall
        / rule.fall_nats
        for name, one in answers.items()
        if fallen(one, rule)
    }
    return tuple(sorted(out, key=lambda said: -out[said]))
