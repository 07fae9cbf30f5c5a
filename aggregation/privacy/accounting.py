"""Accounting of Gaussian noise, exactly: what a volunteer in T sums gives away (protocol §21).

T sums with noise z times the sensitivity are one with noise z/√T: Gaussian noise composes to
Gaussian noise, whatever was asked in between. One is (ε, δ)-differentially private if and only if

    Φ(1/2s − ε·s) − e^ε · Φ(−1/2s − ε·s) ≤ δ            s = z/√T

(Balle & Wang 2018, arXiv:1805.06530, Theorem 8). No amplification by sampling is counted: everybody
sees who takes part. tests/vectors/gaussian_accounting.json has the same numbers from dp-accounting.

    z = noise_multiplier(8.0, 1e-6, participations=10)
    epsilon(z, 1e-6, participations=10)                    # 8.0
"""

from __future__ import annotations

import math
from collections.abc import Callable

from nomoat.aggregation.errors import UsageError

MOST_EPSILON = 1e4
HALVINGS = 200


def epsilon(noise_multiplier: float, delta: float, participations: int = 1) -> float:
    """Return the least ε of so many sums at this δ; MOST_EPSILON if it is not below that.

    noise_multiplier: z, the standard deviation of a sum's noise over the bound on an update.
    """
    scale = noise_multiplier / math.sqrt(participations)
    if scale <= 0 or delta_of(scale, MOST_EPSILON) > delta:
        return MOST_EPSILON
    return _least(lambda e: delta_of(scale, e) <= delta, 0.0, MOST_EPSILON)


def noise_multiplier(epsilon_: float, delta: float, participations: int = 1) -> float:
    """Return the least z for which so many sums are (ε, δ)-private; UsageError if none can be."""
    if not 0 < epsilon_ < MOST_EPSILON or not 0 < delta < 1 or participations < 1:
        raise UsageError(
            f"no noise makes epsilon {epsilon_:g}, delta {delta:g} of {participations} sums: give "
            "an epsilon above 0, a delta between 0 and 1, and one sum at least"
        )
    scale = _least(lambda s: delta_of(s, epsilon_) <= delta, 1e-6, 1e6)
    return scale * math.sqrt(participations)


def delta_of(scale: float, epsilon_: float) -> float:
    """Return the least δ of one sum with noise `scale` times its sensitivity, at this ε."""
    half = 1 / (2 * scale)
    first, second = half - epsilon_ * scale, -half - epsilon_ * scale
    return max(0.0, _normal(first) - math.exp(epsilon_ + _log_normal(second)))


def _normal(x: float) -> float:
    """Φ(x), exact in its lower tail."""
    return math.erfc(-x / math.sqrt(2)) / 2


def _log_normal(x: float) -> float:
    """log Φ(x), also where Φ(x) is too small for a number."""
    if x > -30:
        return math.log(_normal(x))
    # Mills' ratio by its asymptotic series: relative error below 1e-8 from −30 on.
    inverse = 1 / (x * x)
    series = 1 - inverse + 3 * inverse**2 - 15 * inverse**3
    return -x * x / 2 - math.log(-x * math.sqrt(2 * math.pi)) + math.log(series)


def _least(holds: Callable[[float], bool], low: float, high: float) -> float:
    """The least number in [low, high] that something holds for, which holds from there on."""
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
