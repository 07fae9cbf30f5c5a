"""Exposure: how many bits of a planted phrase an adapter gives away.

    exposure = log2 |R| − log2 rank          R: all phrases; rank: how many are as likely or more

Carlini et al. 2019 (arXiv:1802.08232), §4. The rank among all of R is estimated from a sample: by
how many of it are more likely, and, where none is, by the tail of a normal distribution with the
sample's mean and deviation (§4.3). About 0 to 2 bits: as for phrases it has never seen; all bits:
whoever asks is told the phrase.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from nomoat.lora.canaries.phrases import BITS


@dataclass(frozen=True, slots=True)
class Exposure:
    """One canary under one adapter. ahead: how many of `of` other phrases are more likely."""

    bits: float
    ahead: int
    of: int


def exposure(loss: float, others: Sequence[float]) -> Exposure:
    """Return the exposure of a phrase. loss, others: nats per token of it and of others like it."""
    ahead = sum(other <= loss for other in others)
    if ahead:
        bits = math.log2((len(others) + 1) / (ahead + 1))
        return Exposure(min(BITS, bits), ahead, len(others))
    mean, deviation = statistics.fmean(others), statistics.stdev(others)
    away = (mean - loss) / deviation if deviation else math.inf
    tail = math.erfc(away / math.sqrt(2)) / 2
    bits = -math.log2(tail) if tail > 0 else math.inf
    return Exposure(min(BITS, max(bits, math.log2(len(others) + 1))), 0, len(others))
