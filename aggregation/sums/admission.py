"""The door: what a volunteer's unmasked report must satisfy to count (protocol §4).

Flower's FedAvg lets one NaN through to the global adapter, broadcasts a rank-1 tensor over a
rank-8 one and believes any sample count. Each of these is refused here, by the volunteer's name.

A trained delta has values of 1e-4 … 1e-1; the limits only stop what cannot be one. Bounding
honest-looking attacks is the business of clipping and acceptance.
"""

from __future__ import annotations

import math

import numpy as np

from nomoat.aggregation.errors import RemoteProtocolError
from nomoat.aggregation.protocol.adapter import Manifest, Vector
from nomoat.aggregation.sums.exact_sum import MAX_VALUE, sound_norm
from nomoat.aggregation.sums.parallel import Run

SECTION = "§4"
MAX_NORM = 1e3  # L2, of a whole report
MIN_WEIGHT = 1e-9  # far above the least that an exact sum takes


def admit(
    volunteer: str,
    body: bytes | memoryview,
    manifest: Manifest,
    weight: float,
    max_norm: float = MAX_NORM,
    run: Run = map,
) -> Vector:
    """The report as float32 (d,), a read-only view of `body`.

    run: how parts are read, with the same verdict.

    Raises RemoteProtocolError(volunteer, §4) for what open_report() refuses, and for NaN or
    infinity, a value or a norm beyond the limits.
    """
    vector = open_report(volunteer, body, manifest, weight)
    norm = sound_norm(vector, run)
    if norm > max_norm or norm == math.inf:
        raise RemoteProtocolError(volunteer, SECTION, fault(vector, manifest, norm, max_norm))
    return vector


def open_report(
    volunteer: str, body: bytes | memoryview, manifest: Manifest, weight: float
) -> Vector:
    """The report as float32 (d,), a read-only view of `body`, with its values still unseen.

    Raises RemoteProtocolError(volunteer, §4) for a wrong length, or a weight outside [1e-9, 1].
    """
    if type(weight) not in (float, int) or not MIN_WEIGHT <= weight <= 1.0:
        reason = f"weight {weight!r:.40} is not in [{MIN_WEIGHT:g}, 1]"
        raise RemoteProtocolError(volunteer, SECTION, reason)
    if len(body) != 4 * manifest.size:
        reason = f"report has {len(body)} bytes, the adapter's has {4 * manifest.size}"
        raise RemoteProtocolError(volunteer, SECTION, reason)
    return np.frombuffer(body, "<f4").astype(np.float32, copy=False)


def fault(vector: Vector, manifest: Manifest, norm: float, max_norm: float) -> str:
    """Say what is wrong with a report whose norm is beyond max_norm, or infinite by a value."""
    for name, values in manifest.views(vector).items():
        largest = float(np.abs(values).max(initial=0.0))
        if not math.isfinite(largest):
            return f"{name} holds NaN or infinity"
        if largest > MAX_VALUE:
            return f"{name} holds a value of {largest:.3g}, more than {MAX_VALUE:g}"
    return f"report has norm {norm:.3g}, more than {max_norm:g}"
