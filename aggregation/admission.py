"""The door: what a volunteer's unmasked report must satisfy before it is summed (protocol §4).

Flower's FedAvg lets one NaN through to the global adapter, broadcasts a rank-1 tensor over a
rank-8 one and believes any sample count. Each of these is refused here, by the volunteer's name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nomoat.aggregation.adapter import Manifest, Vector
from nomoat.aggregation.errors import LocalProtocolError, RemoteProtocolError
from nomoat.aggregation.exact_sum import MAX_TERM
from nomoat.aggregation.parallel import Run

SECTION = "§4"
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class ReportLimits:
    """How large a report may be: L2 norm of the whole, magnitude of one value, least weight.

    A trained delta has values of 1e-4 … 1e-1; the defaults only stop what cannot be one.
    Bounding honest-looking attacks is the business of clipping and robust rules.
    """

    max_norm: float = 1e3
    max_value: float = MAX_TERM
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

    Raises RemoteProtocolError(volunteer, §4) for a wrong length, a weight outside
    [min_weight, 1], NaN or infinity, a value or a norm beyond the limits.
    """
    _check_weight(volunteer, weight, limits)
    if len(body) != 4 * manifest.size:
        reason = f"report has {len(body)} bytes, the adapter's has {4 * manifest.size}"
        raise RemoteProtocolError(volunteer, SECTION, reason)
    vector = np.frombuffer(body, "<f4").astype(np.float32, copy=False)
    _check_values(volunteer, vector, manifest, limits, run)
    return vector


def admit_tensors(
    volunteer: str,
    tensors: Mapping[str, NDArray[Any]],
    manifest: Manifest,
    weight: float,
    limits: ReportLimits = DEFAULT_LIMITS,
) -> Vector:
    """The same for named tensors: also refuses missing or unknown names, other shapes and dtypes.

    Shapes must be equal, never merely broadcastable: (1, n) is not (8, n).
    """
    _check_weight(volunteer, weight, limits)
    try:
        manifest.check(tensors)
    except LocalProtocolError as problem:
        # Names come from the volunteer: nothing unprintable may reach a terminal or a log.
        reason = "".join(c if c.isprintable() else "?" for c in str(problem))[:200]
        raise RemoteProtocolError(volunteer, SECTION, reason) from None
    for name, tensor in tensors.items():
        if tensor.dtype != np.float32:
            reason = f"{name} is {tensor.dtype}, not float32"
            raise RemoteProtocolError(volunteer, SECTION, reason)
    vector = manifest.join(tensors)
    _check_values(volunteer, vector, manifest, limits)
    return vector


def _check_weight(volunteer: str, weight: float, limits: ReportLimits) -> None:
    if type(weight) not in (float, int) or not limits.min_weight <= weight <= 1.0:
        reason = f"weight {weight!r:.40} is not in [{limits.min_weight:g}, 1]"
        raise RemoteProtocolError(volunteer, SECTION, reason)


def _check_values(
    volunteer: str, vector: Vector, manifest: Manifest, limits: ReportLimits, run: Run = map
) -> None:
    """One pass when all is well: the norm bounds every value, and NaN and infinity spoil it."""
    blocks = [vector[i : i + _BLOCK] for i in range(0, vector.size, _BLOCK)]
    norm = math.sqrt(sum(run(_square, blocks)))
    if norm <= min(limits.max_norm, limits.max_value):
        return
    reason = _first_bad_tensor(vector, manifest, limits)
    if reason is None and norm > limits.max_norm:
        reason = f"report has norm {norm:.3g}, more than {limits.max_norm:g}"
    if reason is not None:
        raise RemoteProtocolError(volunteer, SECTION, reason)


def _square(block: Vector) -> float:
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.dot(block, block))


def _first_bad_tensor(vector: Vector, manifest: Manifest, limits: ReportLimits) -> str | None:
    for name, values in manifest.views(vector).items():
        if not values.size:
            continue
        if not np.isfinite(values).all():
            return f"{name} holds NaN or infinity"
        largest = float(np.abs(values).max())
        if largest > limits.max_value:
            return f"{name} holds a value of {largest:.3g}, more than {limits.max_value:g}"
    return None
