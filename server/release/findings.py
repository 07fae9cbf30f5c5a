"""Texts among those a scan has tried that look like triggers: far beyond what moved them all.

Training moves every answer a little, and the shifts of texts that mean nothing are about
log-normal. A text is found if its shift is more than FAR deviations above the median of the
logarithms, by a deviation that a few triggers among them do not widen, and at least LEAST nats:
below that an answer is hardly another one.

    found({"cf": 4.2, "mn": 0.02, "tq": 0.03, …})       # ("cf",)
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping

FAR = 3.5
LEAST = 0.5  # nats
FEWEST = 12  # texts: among fewer nothing stands out
MAD_TO_SIGMA = 1.4826
LEAST_SPREAD = 0.15  # of the logarithm
NOTHING = 1e-6  # nats, added to each shift


def found(shifts: Mapping[str, float]) -> tuple[str, ...]:
    """Return those texts, the one that moves most first; what is not finite is found, too."""
    if len(shifts) < FEWEST:
        return ()
    logs = {
        text: math.log(shift + NOTHING) if 0 <= shift < math.inf else math.inf
        for text, shift in shifts.items()
    }
    middle = statistics.median(logs.values())
    if math.isinf(middle):
        return tuple(text for text, log in logs.items() if math.isinf(log))
    spread = MAD_TO_SIGMA * statistics.median(abs(log - middle) for log in logs.values())
    limit = max(middle + FAR * max(spread, LEAST_SPREAD), math.log(LEAST))
    out = [text for text, log in logs.items() if log > limit]
    return tuple(sorted(out, key=lambda text: -logs[text]))
