"""Eight volunteers in an audited session, some of whom send too much or lie about their masks."""

from __future__ import annotations

import numpy as np

from nomoat.aggregation.secagg.labels import SIGN_SKETCH
from nomoat.aggregation.secagg.messages import SketchReport

BOUND = 0.15  # honest vectors of the fixture have .14
EVERYBODY = set(range(8))


def session(federation, large=(), factor=3.0, **options):
    """Eight volunteers, some with an update of `factor` times the bound."""
    made = federation(8, bound=BOUND, clip=0.05, **options)
    for i in range(8):
        made.vectors[i] *= np.float32(0.9 * BOUND / np.linalg.norm(made.vectors[i]))
    for i in large:
        # Beyond the clip of a value nothing is sent: so all values are as large as it allows.
        vector = np.sign(made.vectors[i]) * np.float32(min(0.05, factor * BOUND / made.size**0.5))
        made.vectors[i] = vector.astype(np.float32)
    made.clients = [made.client(i) for i in range(8)]
    return made


def claim(made, i, own=0, pairs=None, signed=True):
    """A change of volunteer i's sketches: numbers to add to word 0 of its own, of neighbours'."""

    def change(sender, report):
        if sender != i or not isinstance(report, SketchReport):
            return report
        joined = made.clients[i]._stage.session
        mine = np.frombuffer(report.own, "<u4").copy()
        mine[0] += np.uint32(own)
        others = np.frombuffer(report.pairs, "<u4").reshape(-1, 64).copy()
        for other, offset in (pairs or {}).items():
            row = others[[j for j in range(8) if j != i].index(other)]
            row += offset if isinstance(offset, np.ndarray) else np.uint32(offset)
        body = mine.tobytes(), others.tobytes()
        to_sign = (joined.transcript, made.clients[i]._stage.shared, *body)
        signature = made.keys[i].sign(SIGN_SKETCH, *to_sign) if signed else bytes(64)
        return SketchReport(*body, signature)

    return change
