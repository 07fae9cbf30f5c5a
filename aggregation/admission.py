"""The door: what a volunteer's unmasked report must satisfy before it is summed (protocol §4).

Flower's FedAvg lets one NaN through to the global adapter, broadcasts a rank-1 tensor over a
rank-8 one and believes any sample count. Each of these is refused here, by the volunteer's name.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nomoat.aggregation.adapter import Manifest, Vector
from nomoat.aggregation.errors import RemoteProtocolError
from nomoat.aggregation.exact_sum import BLOCK, MAX_VALUE, sound_square
from nomoat.aggregation.parallel import Run

SECTION = "§4"


@dataclass(frozen=True, slots=True)
class ReportLimits:
    """How large a report may be, as a whole (L2 norm), and its least weight.

    No value may be larger than what an exact sum takes (MAX_VALUE).

    A trained delta has values of 1e-4 … 1e-1; the defaults only stop what cannot be one.
    Bounding honest-looking attacks is the business of clipping and robust rules.
    """

    max_norm: float = 1e3
    min_weight: float = 1e-9


DEFAULT_LIMITS = ReportLimits()


def admit(
    volunteer: str,
    body: bytes | memoryview,
    manifest: Manifest,
    weight: float,
    limits: ReportLimits = DEFAULT_LIMITS,
    run: Run = map,
) -> Vector:
    """The report as float32 (d,), a read-only view of `body`.

    run: how blocks are read, with the same verdict.

    Raises RemoteProtocolError(volunteer, §4) for what open_report() refuses, and for NaN or
    infinity, a value or a norm beyond the limits.
    """
    vector = open_report(volunteer, body, manifest, weight, limits)
    blocks = [vector[i : i + BLOCK] for i in range(0, vector.size, BLOCK)]
    norm = math.sqrt(sum(run(sound_square, blocks)))
    if norm > limits.max_norm or norm == math.inf:
        raise RemoteProtocolError(volunteer, SECTION, fault(vector, manifest, norm, limits))
    return vector


def open_report(
    volunteer: str,
    body: bytes | memoryview,
    manifest: Manifest,
    weight: float,
    limits: ReportLimits = DEFAULT_LIMITS,
) -> Vector:
    """The report as float32 (d,), a read-only view of `body`, with its values still unseen.

    Raises RemoteProtocolError(volunteer, §4) for a wrong length, or a weight outside
    [min_weight, 1].
    """
    if type(weight) not in (float, int) or not limits.min_weight <= weight <= 1.0:
        reason = f"weight {weight!r:.40} is not in [{limits.min_weight:g}, 1]"
        raise RemoteProtocolError(volunteer, SECTION, reason)
    if len(body) != 4 * manifest.size:
        reason = f"report has {len(body)} bytes, the adapter's has {4 * manifest.size}"
        raise RemoteProtocolError(volunteer, SECTION, reason)
    return np.frombuffer(body, "<f4").astype(np.float32, copy=False)


def fault(vector: Vector, manifest: Manifest, norm: float, limits: ReportLimits) -> str:
    """What is wrong with a report: norm is beyond the limits, infinite where a value is."""
    for name, values in manifest.views(vector).items():
        largest = float(np.abs(values).max(initial=0.0))
        if not math.isfinite(largest):
            return f"{name} holds NaN or infinity"
        if largest > MAX_VALUE:
            return f"{name} holds a value of {largest:.3g}, more than {MAX_VALUE:g}"
    return f"report has norm {norm:.3g}, more than {limits.max_norm:g}"
