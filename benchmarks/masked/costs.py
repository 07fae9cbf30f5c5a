"""Costs of a session to one volunteer and the coordinator, from measured parts."""

from __future__ import annotations

import os
import statistics
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from masked.comparison import masking_rate
from masked.session import Ours
from masked.timing import CLIP, timed, updates
from nomoat.aggregation.protocol import signing
from nomoat.aggregation.protocol.adapter import Manifest, TensorSpec
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.aggregation.secagg.audit.sketch import Signs, sketch_keystreams
from nomoat.aggregation.secagg.masks import keys, masking, shamir
from nomoat.aggregation.secagg.masks.prg import Keystream
from nomoat.aggregation.secagg.masks.shamir import SHARE_BYTES
from nomoat.aggregation.secagg.messages import BOX_BYTES
from nomoat.aggregation.secagg.parameters import DEFAULT_ASSUMPTIONS, VALUE_BITS
from nomoat.aggregation.secagg.thresholds import thresholds
from nomoat.aggregation.sums.fixed_point import (
    ClipLayout,
    Contribution,
    FixedPoint,
    most_value_bits,
)
from nomoat.aggregation.sums.packing import BLOCK, packed_bytes


@dataclass(frozen=True)
class Cost:
    """One row: seconds and bytes of one volunteer, seconds of the coordinator."""

    participants: int
    neighbours: int
    mask_s: float  # linear in k·d
    peers_s: float  # keys, shares, boxes: linear in k
    roster_s: float  # decode the roster, verify n + q signatures: linear in n, but small
    up_bytes: int
    down_bytes: int
    server_s: float
    measured: bool


def costs(size: int, repeats: int) -> Iterator[Cost]:
    """Rows for n = 10, 100, 1000 and 10 000, from parts measured at their real k and d."""
    unit = unit_costs(repeats)
    for count in (10, 100, 1000, 10_000):
        needed = thresholds(count, DEFAULT_ASSUMPTIONS)
        k, dropped = needed.neighbours, count // 5
        point = FixedPoint(min(VALUE_BITS, most_value_bits(count)), count)
        mask = statistics.median(mask_once(size, k, point) for _ in range(repeats))
        live, pairs = count - dropped, dropped * k * 4 // 5
        server = live * unit["add"] * size + 6 * count * unit["verify"]
        server += (live + pairs) * unit["stream"] * size + pairs * unit["agree"]
        server += count * statistics.median(combine_once(needed.shares) for _ in range(repeats))
        up = packed_bytes(size, point.wire_bits) + k * (BOX_BYTES + SHARE_BYTES) + 660
        down = count * 168 + k * (BOX_BYTES + 5) + needed.quorum * 64 + 3 * (count // 8) + 400
        yield Cost(
            count,
            k,
            mask,
            k * unit["peer"],
            (count + needed.quorum) * unit["verify"],
            up,
            down,
            server,
            count <= 1000,
        )


def mask_once(size: int, neighbours: int, point: FixedPoint) -> float:
    """Seconds to round, mask, pack and hash one vector with that many neighbours."""
    layout = ClipLayout(Manifest((TensorSpec("update", (size,)),)), (CLIP,))
    contribution = Contribution(updates(np.random.default_rng(0), size))
    drawn = [os.urandom(32) for _ in range(neighbours + 1)]
    half = neighbours // 2
    made = masking.MaskKeys(tuple(drawn[half:]), tuple(drawn[:half]))
    return timed(lambda: masking.masked_vector(contribution, layout, point, os.urandom(32), made))[
        0
    ]


def audit_once(size: int, neighbours: int) -> float:
    """Seconds to sketch the self mask and every pair mask of one vector (docs/protocol.md §20)."""
    drawn = {i: os.urandom(32) for i in range(neighbours + 1)}
    return timed(lambda: sketch_keystreams(Signs(bytes(32), bytes(32)), drawn, size))[0]


def unit_costs(repeats: int) -> dict[str, float]:
    """Seconds per signature, per neighbour, per added coordinate, per coordinate of keystream."""
    count = 100
    needed = thresholds(count, DEFAULT_ASSUMPTIONS)
    k = needed.neighbours
    vector = np.zeros(1000, np.float32)
    found: dict[str, list[float]] = defaultdict(list)
    for _ in range(repeats):
        session = Ours(count, 1000, lambda _: vector)
        session.run(set(range(0, count, 5)))
        verify = statistics.median(verify_once() for _ in range(9))
        shares = statistics.median(session.client_s["shares"]) - count * verify
        rest = sum(statistics.median(session.client_s[name]) for name in ("checks", "masked"))
        found["verify"].append(verify)
        found["peer"].append((shares + rest) / k)
        found["agree"].append(agree_once())
        found["stream"].append(4 / masking_rate(1 << 20, 8))
        found["add"].append(add_once())
    return {name: statistics.median(values) for name, values in found.items()}


def verify_once() -> float:
    """Seconds to decode nothing and verify one signature, as in the roster check."""
    key = SigningKey(os.urandom(32))
    signature = key.sign("benchmark", b"part", b"part")
    return timed(lambda: signing.verify(key.public, signature, "benchmark", b"part", b"part"))[0]


def agree_once() -> float:
    """Seconds to recompute the key of one pairwise mask."""
    private, public = os.urandom(32), keys.public_of(os.urandom(32))
    return timed(lambda: masking.pair_mask_key(keys.agree(private, public), bytes(32), 0, 1))[0]


def combine_once(threshold: int) -> float:
    """Seconds to recover one secret from that many shares."""
    points = list(range(1, threshold + 1))
    dealt = shamir.split(bytes(32), threshold, points, Keystream(os.urandom(32)))
    return timed(lambda: shamir.combine(dict(zip(points, dealt, strict=True))))[0]


def add_once() -> float:
    """Seconds per coordinate to unpack a masked vector and add it."""
    size = 4 * BLOCK
    point = FixedPoint(VALUE_BITS, 1000)
    total = masking.MaskedSum(size, point)
    packed = os.urandom(packed_bytes(size, point.wire_bits))
    total.add(packed)
    return timed(lambda: total.add(packed))[0] / size
