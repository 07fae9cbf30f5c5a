"""The vector that an exchange of a round sums of an update that is held."""

from __future__ import annotations

import numpy as np

from nomoat.aggregation import methods
from nomoat.aggregation.errors import LocalProtocolError, RemoteProtocolError
from nomoat.aggregation.methods.base import SummedMethod
from nomoat.aggregation.protocol.adapter import Vector, as_vector
from nomoat.aggregation.protocol.wire import COORDINATOR
from nomoat.aggregation.sums.norm_bound import NormBound
from nomoat.client.round.work import HeldUpdate, UpdateSummary


def upload_of(held: HeldUpdate, exchange: int, reply: Vector | None, clip_l2: float) -> Vector:
    """Return what the method sums of this update, scaled down to the bound where there is one.

    reply: what the exchange before gave, None in the first. clip_l2: 0 for no bound.
    RemoteProtocolError if the reply is not one that this exchange needs.
    """
    method = methods.get(held.method)
    try:
        vector = method.upload(held.local, held.trained, held.round, exchange, reply)
    except LocalProtocolError as problem:  # no reply, or one of another size
        raise RemoteProtocolError(COORDINATOR, "§4", str(problem)) from None
    if not clip_l2 or not isinstance(method, SummedMethod):
        return vector
    size = method.bounded(held.local.broadcast.spec, held.round, exchange)
    return NormBound(clip_l2, size).clip(vector)


def summary_of(held: HeldUpdate, exchange: int, vector: Vector) -> UpdateSummary:
    """The tensors and the norm of a vector that is about to leave."""
    manifest = methods.get(held.method).manifest(held.local.broadcast.spec, held.round, exchange)
    return UpdateSummary(manifest, float(np.linalg.norm(vector)))


def reply_vector(data: bytes) -> Vector:
    """Decode what the coordinator made of the exchange before; RemoteProtocolError if it cannot."""
    try:
        vector = as_vector(data)
    except LocalProtocolError as problem:
        raise RemoteProtocolError(COORDINATOR, "§4", str(problem)) from None
    if not np.isfinite(vector).all():
        raise RemoteProtocolError(COORDINATOR, "§4", "the reply has values that are not finite")
    return vector
