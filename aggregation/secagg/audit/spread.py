"""Count of the values an update really has: where few are large, 64 numbers tell them all.

Whoever chooses the adapter can make it one from which few values move. A volunteer counts, before
its masked vector leaves, and lets no such update be sketched (docs/protocol.md §20.7).
"""

from __future__ import annotations

import math

import numpy as np

from nomoat.aggregation.protocol.adapter import Vector
from nomoat.aggregation.sums.packing import blocks


def effective_values(vector: Vector) -> float:
    """Return (Σx²)²/Σx⁴ of a vector (d,): d if all are as large, k if k are and the others zero.

    Infinite for a vector of zeros, of which nothing can be told.
    """
    squares = fourths = 0.0
    for start, stop in blocks(len(vector)):
        block = np.square(vector[start:stop], dtype=np.float64)
        squares += float(block.sum())
        fourths += float(np.dot(block, block))
    return squares**2 / fourths if fourths else math.inf
