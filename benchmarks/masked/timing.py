"""CPU seconds, and updates to mask."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

CLIP = 0.0625


def timed(action: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds and result of one call: on an idle core, the time it takes."""
    start = time.process_time()
    result = action()
    return time.process_time() - start, result


def updates(rng: np.random.Generator, size: int) -> np.ndarray:
    """A made-up update (d,) float32."""
    return (rng.standard_normal(size, np.float32) * np.float32(0.01)).astype(np.float32)
