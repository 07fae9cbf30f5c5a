"""Limits on how fast a peer may ask: token buckets, one per peer, a bounded number of them."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

MAX_PEERS = 10_000


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `per_s` requests a second over the long run, `burst` at once."""

    per_s: float
    burst: float


@dataclass(frozen=True, slots=True)
class RequestBucket:
    """Tokens left at a moment (seconds of a monotonic clock)."""

    tokens: float
    at: float


def spend(bucket: RequestBucket | None, rate: Rate, now: float) -> tuple[RequestBucket, bool]:
    """Take one token: tokens ← min(burst, tokens + per_s·Δt) − 1 if that is ≥ 0."""
    before = RequestBucket(rate.burst, now) if bucket is None else bucket
    tokens = min(rate.burst, before.tokens + rate.per_s * max(0.0, now - before.at))
    return (
        (RequestBucket(tokens - 1, now), True)
        if tokens >= 1
        else (RequestBucket(tokens, now), False)
    )


class RateLimit:
    """Buckets by peer; the peer not heard of for longest is forgotten first."""

    def __init__(self, rate: Rate, max_peers: int = MAX_PEERS) -> None:
        self._rate = rate
        self._max_peers = max_peers
        self._buckets: OrderedDict[str, RequestBucket] = OrderedDict()

    def allow(self, peer: str, now: float) -> bool:
        """True if `peer` may ask now; counts the request if so."""
        bucket, allowed = spend(self._buckets.pop(peer, None), self._rate, now)
        self._buckets[peer] = bucket
        if len(self._buckets) > self._max_peers:
            self._buckets.popitem(last=False)
        return allowed

    def has_left(self, peer: str, now: float) -> bool:
        """True if `peer` may ask now, without counting anything."""
        return spend(self._buckets.get(peer), self._rate, now)[1]
