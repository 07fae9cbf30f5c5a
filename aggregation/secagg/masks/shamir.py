"""Shamir's secret sharing of 32 bytes over the field of 2^31 − 1, limb by limb in numpy.

A secret is nine limbs of 30 bits, least significant first; each limb is the constant term of its
own polynomial of degree t − 1 and a share is the nine values at one point x ≠ 0, as little-endian
uint32 (36 bytes). Shamir 1979 (doi:10.1145/359168.359176); docs/protocol.md §12.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from nomoat.aggregation.errors import LocalProtocolError
from nomoat.aggregation.secagg.masks.prg import Keystream

PRIME = 2**31 - 1
LIMBS = 9
LIMB_BITS = 30
SECRET_BYTES = 32
SHARE_BYTES = 4 * LIMBS

Field = NDArray[np.uint64]


class BadShares(Exception):
    """Shares that are malformed or do not interpolate to 32 bytes."""


def field_elements(stream: Keystream, count: int) -> Field:
    """`count` uniform elements of the field: 31 bits a word, 2^31 − 1 itself rejected."""
    found = np.empty(0, np.uint64)
    while len(found) < count:
        words = stream.words(count - len(found)) & np.uint32(PRIME)
        found = np.concatenate([found, words[words != PRIME].astype(np.uint64)])
    return found


def split(secret: bytes, threshold: int, points: Sequence[int], stream: Keystream) -> list[bytes]:
    """Shares of `secret` at `points`, any `threshold` of which recover it and fewer tell nothing.

    Coefficients are drawn from `stream`, which must be used for nothing else. Raises
    LocalProtocolError if points repeat, are 0, or are fewer than the threshold.
    """
    if not 1 <= threshold <= len(points) or len(set(points)) != len(points):
        raise LocalProtocolError(f"{threshold} of {len(points)} shares cannot be dealt")
    if not all(0 < point < PRIME for point in points):
        raise LocalProtocolError("share points must be field elements other than 0")
    x = np.array(points, np.uint64)[:, None]
    higher = field_elements(stream, (threshold - 1) * LIMBS).reshape(threshold - 1, LIMBS)
    value = np.zeros((len(points), LIMBS), np.uint64)
    for coefficients in (*higher[::-1], _limbs(secret)):  # Horner
        value = (value * x + coefficients) % PRIME
    return [row.tobytes() for row in value.astype("<u4")]


def combine(shares: Mapping[int, bytes]) -> bytes:
    """The secret that exactly these shares (point → 36 bytes) interpolate to; BadShares if none."""
    values = np.stack([parse(share) for share in shares.values()])
    weights = _lagrange_at_zero(np.array(list(shares), np.uint64))
    limbs = np.zeros(LIMBS, np.uint64)
    for weight, row in zip(weights, values, strict=True):
        limbs = (limbs + weight * row) % PRIME
    if (limbs >> LIMB_BITS).any():
        raise BadShares("shares do not interpolate to 30-bit limbs")
    secret = sum(int(limb) << (LIMB_BITS * i) for i, limb in enumerate(limbs))
    if secret >> (8 * SECRET_BYTES):
        raise BadShares("shares interpolate to more than 32 bytes")
    return secret.to_bytes(SECRET_BYTES, "little")


def parse(share: bytes) -> Field:
    """A share's nine field elements; BadShares unless every one is below 2^31 − 1."""
    if len(share) != SHARE_BYTES:
        raise BadShares(f"a share has {len(share)} bytes")
    values = np.frombuffer(share, "<u4").astype(np.uint64)
    if (values >= PRIME).any():
        raise BadShares("a share is not of the field")
    return values


def _limbs(secret: bytes) -> Field:
    if len(secret) != SECRET_BYTES:
        raise LocalProtocolError(f"a shared secret has 32 bytes, not {len(secret)}")
    value = int.from_bytes(secret, "little")
    mask = (1 << LIMB_BITS) - 1
    return np.array([(value >> (LIMB_BITS * i)) & mask for i in range(LIMBS)], np.uint64)


def _lagrange_at_zero(points: Field) -> Field:
    """λ_i = Π_{j≠i} x_j / (x_j − x_i) mod 2^31 − 1."""
    above = np.ones(len(points), np.uint64)
    below = np.ones(len(points), np.uint64)
    for index, point in enumerate(points):
        others = np.arange(len(points)) != index
        above[others] = above[others] * point % PRIME
        below[others] = below[others] * ((point + PRIME - points[others]) % PRIME) % PRIME
    inverse = np.array([pow(int(value), -1, PRIME) for value in below], np.uint64)
    return above * inverse % PRIME
