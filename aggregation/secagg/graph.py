"""The graph of masks and shares: a Harary ring over a permutation that everybody recomputes.

Bell et al. 2020 (doi:10.1145/3372297.3417885): a random k-regular graph keeps honest
survivors connected and no neighbourhood mostly corrupt, at logarithmic degree.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nomoat.aggregation.errors import LocalProtocolError
from nomoat.aggregation.secagg import labels
from nomoat.aggregation.secagg.masks.prg import Keystream


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """A ring: volunteer `order[p]` sits at seat p and knows the k/2 seats on either side."""

    order: NDArray[np.int64]
    seat: NDArray[np.int64]
    degree: int

    def neighbours(self, index: int) -> tuple[int, ...]:
        """The volunteers that `index` shares with, ascending, itself not among them."""
        count = len(self.order)
        if self.degree == count - 1:
            return tuple(i for i in range(count) if i != index)
        half = self.degree // 2
        seats = (self.seat[index] + np.r_[-half:0, 1 : half + 1]) % count
        return tuple(sorted(self.order[seats].tolist()))


def build(count: int, degree: int, transcript: bytes) -> Graph:
    """The graph of a session of `count` volunteers, seeded by its transcript hash.

    Seats are sorted by 64 keystream bits each (ties, at most n²/2^65 likely, keep their order). A
    degree below count − 1 must be even.
    """
    if not 1 <= degree <= count - 1 or (degree < count - 1 and degree % 2):
        raise LocalProtocolError(f"no ring of {count} volunteers has degree {degree}")
    stream = Keystream(labels.derive(transcript, labels.KDF_GRAPH))
    order = np.argsort(stream.words(2 * count).view("<u8"), kind="stable")
    seat = np.empty(count, np.int64)
    seat[order] = np.arange(count)
    return Graph(order, seat, degree)
