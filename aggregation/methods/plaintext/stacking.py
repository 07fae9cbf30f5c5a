"""Common to the plaintext methods: reports as weighted factors, and a base change that grows.

A change of the base model is kept as further rank-1 modules of the broadcast, after the trainable
ones: no d_out × d_in matrix is built, the community adapter stays one PEFT adapter that can be
exported or merged, and every method reads it the same way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from nomoat.aggregation.errors import LocalProtocolError
from nomoat.aggregation.methods import lowrank, modules
from nomoat.aggregation.methods.base import MethodState, PlaintextReport
from nomoat.aggregation.methods.lowrank import Floats
from nomoat.aggregation.protocol.adapter import Adapter, AdapterSpec

Weighted = tuple[float, Floats, Floats]  # (p, A (r, d_in), B (d_out, r))

MAX_GROWN_RANK = 512  # modules of a broadcast, the weakest are cut off; twice its rank if more


def open_uploads(
    spec: AdapterSpec, uploads: Sequence[PlaintextReport]
) -> dict[str, list[Weighted]]:
    """Layer name → (pᵢ, Aᵢ, Bᵢ) of every report, Σpᵢ = 1.

    LocalProtocolError if there is none, a weight is not positive or a vector does not fit its
    rank: the door (admission.py) has seen them before.
    """
    total = sum(upload.weight for upload in uploads)
    if not uploads or any(not 0 < upload.weight < np.inf for upload in uploads):
        raise LocalProtocolError("aggregation needs reports of positive weight")
    layers: dict[str, list[Weighted]] = {layer.name: [] for layer in spec.layers}
    for upload in uploads:
        one = Adapter(modules.same_scale(spec, upload.rank), upload.vector)
        for layer, a, b in one.factors():
            layers[layer.name].append((upload.weight / total, a, b))
    return layers


def frozen_modules(state: MethodState) -> dict[str, list[Weighted]]:
    """Layer name → the modules beyond the trainable ones, as one product of weight 1."""
    return {
        layer.name: [(1.0, a[state.rank :], b[:, state.rank :])]
        for layer, a, b in state.adapter.factors()
    }


def grown(
    state: MethodState, trained: Adapter, base: Mapping[str, Sequence[Weighted]]
) -> MethodState:
    """The state whose broadcast is `trained`'s modules followed by Σ p·BA of `base`, compressed.

    The base change is cut to its numerical rank, and to what MAX_GROWN_RANK leaves of it, but to
    no less than one volunteer trains; layers of lower rank are padded with zero modules.
    """
    room = max(MAX_GROWN_RANK - state.rank, state.rank)
    small = {name: lowrank.compress(*lowrank.stack(parts), room) for name, parts in base.items()}
    rank = max(a.shape[0] for a, _ in small.values())
    if rank == 0:
        return MethodState(trained, state.rank, state.kept)
    padded = {
        name: (_pad(a, rank - a.shape[0], 0), _pad(b, rank - b.shape[1], 1))
        for name, (a, b) in small.items()
    }
    more = modules.build(modules.same_scale(trained.spec, rank), padded)
    return MethodState(modules.append(trained, more), state.rank, state.kept)


def _pad(matrix: lowrank.Matrix, count: int, axis: int) -> lowrank.Matrix:
    widths = [(0, 0), (0, 0)]
    widths[axis] = (0, count)
    return np.pad(matrix, widths)
