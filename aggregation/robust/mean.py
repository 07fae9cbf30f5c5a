"""A mean that f of n vectors, whatever they are, move little: ARC, then NNM, then a trimmed mean.

    ARC   the ⌊2·(f/n)·(n − f)⌋ longest are scaled down to the longest of the others
    NNM   each becomes the mean of the n − f nearest to it, itself among them
    mean  of each coordinate, without its f largest and f smallest values

(Allouah et al. 2024, arXiv:2405.14432, Alg. 2; Allouah et al. 2023, arXiv:2302.01772, Alg. 2; Yin
et al. 2018, arXiv:1803.01498, Def. 2.) The order of the vectors moves the last bits alone.

    robust_mean(vectors, f=1)         # (n, d) float32 → (d,)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nomoat.aggregation.errors import LocalProtocolError
from nomoat.aggregation.protocol.adapter import Vector

Matrix = NDArray[np.float64]
_BLOCK = 1 << 16  # coordinates


class TooManyFaults(LocalProtocolError):
    """So few vectors bear no so many lies: n > 2f is needed."""


def faults_of(share: float, count: int) -> int:
    """Return f: how many of `count` a share of liars is, at most."""
    return math.ceil(share * count - 1e-9)


def robust_mean(vectors: Sequence[Vector], f: int) -> Vector:
    """Return ARC, NNM and the trimmed mean, one after the other, of n vectors of one length d.

    Memory: the vectors themselves and 16·n·65 536 bytes. TooManyFaults unless n > 2f;
    LocalProtocolError if a value is not finite.
    """
    count = len(vectors)
    if not 0 <= 2 * f < count:
        raise TooManyFaults(f"{count} reports bear no {f} lies")
    products = _products(vectors)
    if not np.isfinite(products).all():
        raise LocalProtocolError("a vector has values that are not finite")
    scale = clipping(np.sqrt(np.diag(products)), f)
    mixing = nearest(products * np.outer(scale, scale), f) * scale
    out = np.empty(len(vectors[0]), np.float32)
    for start in range(0, len(out), _BLOCK):
        block = np.stack([vector[start : start + _BLOCK] for vector in vectors])
        out[start : start + _BLOCK] = trimmed_mean(mixing @ block.astype(np.float64), f)
    return out


def clipping(norms: Matrix, f: int) -> Matrix:
    """ARC: the factor each vector is scaled by, (n,), from their norms."""
    count = len(norms)
    longest = int(2 * f / count * (count - f))
    limit = np.sort(norms)[count - longest - 1]
    return np.asarray(np.divide(limit, norms, out=np.ones(count), where=norms > limit))


def nearest(products: Matrix, f: int) -> Matrix:
    """NNM: the weights of each vector in each mixed one, (n, n), from their inner products."""
    count, squares = len(products), np.diag(products)
    distances = squares[:, None] + squares[None, :] - 2 * products
    np.fill_diagonal(distances, -1.0)  # itself, whatever rounding says
    chosen = np.argsort(distances, axis=1, kind="stable")[:, : count - f]
    weights = np.zeros((count, count))
    np.put_along_axis(weights, chosen, 1 / (count - f), axis=1)
    return weights


def trimmed_mean(rows: Matrix, f: int) -> Matrix:
    """Average each coordinate without its f largest and f smallest values; rows: (n, d), n > 2f."""
    if f == 0:
        return np.asarray(rows.mean(axis=0))
    return np.asarray(np.sort(rows, axis=0)[f : len(rows) - f].mean(axis=0))


def _products(vectors: Sequence[Vector]) -> Matrix:
    """All inner products, (n, n)."""
    found = np.zeros((len(vectors), len(vectors)))
    for start in range(0, len(vectors[0]), _BLOCK):
        rows = [vector[start : start + _BLOCK] for vector in vectors]
        block = np.stack(rows).astype(np.float64)
        found += block @ block.T
    return found
