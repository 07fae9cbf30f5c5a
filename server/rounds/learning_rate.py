"""The volunteers' learning rate over the global rounds."""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["constant", "cosine", "warmup"]

FLOOR = 0.1  # of the peak: what a cosine would come down to after the last round
WARMUP = 0.2  # of the rounds, and at least two of them


def learning_rate(schedule: Schedule, peak: float, round: int, rounds: int) -> float:
    """The learning rate of round `round` (from 1) of `rounds`; some round has `peak` itself.

    constant: peak. cosine: peak in the first round, then peak·(f + (1−f)(1 + cos(π(t−1)/T))/2)
    with f = 0.1, whose minimum lies one round after the last: no round is spent at a rate that
    teaches nothing (Loshchilov & Hutter 2017, arXiv:1608.03983, eq. 5). warmup: linear over the
    first fifth of the rounds (at least two), constant from then on.
    """
    if schedule == "cosine":
        turned = (1 + math.cos(math.pi * (round - 1) / rounds)) / 2
        return peak * (FLOOR + (1 - FLOOR) * turned)
    if schedule == "warmup":
        rising = min(rounds, max(2, math.ceil(WARMUP * rounds)))
        return peak * min(1.0, round / rising)
    return peak
