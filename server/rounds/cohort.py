"""Selecting who is asked to train in a round: a seeded draw, the same for the same inputs."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection

import numpy as np

from nomoat.aggregation.sums.exact_sum import MAX_TERMS


def round_seed(seed: bytes, label: str, round_number: int) -> bytes:
    """32 bytes for one purpose in one round, so that no two draws share a stream."""
    return hashlib.sha256(seed + label.encode() + round_number.to_bytes(8, "big")).digest()


def seed_of(number: int, label: str) -> bytes:
    """32 bytes for one purpose, from the number a person chose: the same in a simulation."""
    return hashlib.sha256(f"nomoat {label} {number}".encode()).digest()


def generator(seed: bytes) -> np.random.Generator:
    """A numpy generator from a 32-byte seed."""
    return np.random.default_rng(np.frombuffer(seed, "<u4"))


def select(
    available: Collection[str], fraction: float, minimum: int, seed: bytes
) -> tuple[str, ...]:
    """⌈fraction · n⌉ of the n available volunteers, at least `minimum`, sorted by name.

    Never more than one exact sum can hold.
    """
    names = sorted(available)
    wanted = min(len(names), MAX_TERMS, max(minimum, math.ceil(fraction * len(names) - 1e-9)))
    chosen = generator(seed).permutation(len(names))[:wanted]
    return tuple(sorted(names[i] for i in chosen))
