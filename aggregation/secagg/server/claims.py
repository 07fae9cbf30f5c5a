"""Claims of volunteers about their masks in an audit, checked (§20.5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from nomoat.aggregation.secagg.audit.sketch import Signs, sketch_keystreams
from nomoat.aggregation.secagg.messages import SketchReport
from nomoat.aggregation.secagg.server.formed_session import FormedSession

Sketch: TypeAlias = NDArray[np.uint32]


@dataclass(frozen=True)
class SketchClaims:
    """One volunteer's claims of its masks: sketches of its self mask and of its pair masks."""

    own: Sketch
    pairs: Mapping[int, Sketch]  # neighbour in U2 → of the keystream, without its sign
    report: SketchReport  # as it was signed


def false_sketches(
    session: FormedSession,
    claims: Mapping[int, SketchClaims],
    own_keys: Mapping[int, bytes],
    pair_keys: Mapping[tuple[int, int], bytes],
) -> dict[int, tuple[int, int]]:
    """Liars by sketches that are not of a mask that was revealed, with that mask (§20.5).

    own_keys: index → key of its self mask; pair_keys: (a, b) → key of the mask of these two.
    """
    signs = Signs(session.audit_seed, session.transcript)
    keys = {**{(i, i): key for i, key in own_keys.items()}, **pair_keys}
    true = sketch_keystreams(signs, keys, session.layout.length)
    found: dict[int, tuple[int, int]] = {}
    for (one, other), sketch in true.items():
        said = [(one, claims[one].own)] if one == other and one in claims else []
        if one != other:
            said = [
                (end, claims[end].pairs[beyond])
                for end, beyond in ((one, other), (other, one))
                if end in claims
            ]
        found |= {end: (one, other) for end, claim in said if not np.array_equal(claim, sketch)}
    return found
