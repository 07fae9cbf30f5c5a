"""Network caps: a token bucket that says how long bytes must wait, and what waits so long."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ByteBucket:
    """A token bucket: `level_bytes` may go at once, `rate_bytes_s` more are added every second."""

    rate_bytes_s: float
    capacity_bytes: float
    level_bytes: float
    at_s: float


def spend(bucket: ByteBucket, size_bytes: int, now_s: float) -> tuple[ByteBucket, float]:
    """(bucket after sending `size_bytes`, seconds to wait before sending them).

    The level may fall below zero: a message larger than the capacity waits its full time and goes.
    """
    gained = max(0.0, now_s - bucket.at_s) * bucket.rate_bytes_s
    level = min(bucket.capacity_bytes, bucket.level_bytes + gained)
    wait = max(0.0, (min(size_bytes, bucket.capacity_bytes) - level) / bucket.rate_bytes_s)
    after = ByteBucket(bucket.rate_bytes_s, bucket.capacity_bytes, level - size_bytes, now_s)
    return after, wait


class RateCap:
    """Keeps one direction of a connection to a rate in bytes a second; None: no cap."""

    def __init__(self, rate: float | None) -> None:
        self._bucket = None if rate is None else ByteBucket(rate, rate, rate, time.monotonic())

    def keep(self, size: int) -> None:
        """Wait as long as `size` bytes take at the rate."""
        if self._bucket is not None:
            self._bucket, wait_s = spend(self._bucket, size, time.monotonic())
            time.sleep(wait_s)
