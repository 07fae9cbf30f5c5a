"""Products BA of thin factors, without ever forming them: SVD, new factors, sketches.

B is (m, k) and A is (k, n) with k small; QR of both factors and an SVD of a (k, k) matrix cost
O((m + n)k²) where the dense SVD costs O(mn·min(m, n)). All in float64.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Floats = NDArray[np.float32] | NDArray[np.float64]

INIT_ROW_NORM = 3**-0.5  # of a row of A as PEFT draws it: uniform in ±1/√n
_DEAD = 1e-6  # singular values below this share of the largest are rounding of float32 factors


@dataclass(frozen=True, slots=True)
class Svd:
    """U diag(σ) Vᵀ with u (m, k), sigma (k,) falling, vt (k, n)."""

    u: Matrix
    sigma: Matrix
    vt: Matrix


def svd(b: Floats, a: Floats) -> Svd:
    """The thin SVD of BA; b (m, k), a (k, n); min(m, k, n) singular values.

    Where k ≥ min(m, n) the product is no larger than its factors, and is formed.
    """
    b, a = b.astype(np.float64), a.astype(np.float64)
    if a.shape[0] >= min(b.shape[0], a.shape[1]):
        return Svd(*np.linalg.svd(b @ a, full_matrices=False))
    q_b, r_b = np.linalg.qr(b)
    q_a, r_a = np.linalg.qr(a.T)
    u, sigma, vt = np.linalg.svd(r_b @ r_a.T)
    return Svd(q_b @ u, sigma, vt @ q_a.T)


def stack(parts: Sequence[tuple[float, Floats, Floats]]) -> tuple[Matrix, Matrix]:
    """Factors (B, A) of Σ pᵢBᵢAᵢ from (pᵢ, Aᵢ, Bᵢ): [p₁B₁ p₂B₂ …] and [A₁; A₂; …]."""
    b = np.hstack([weight * b.astype(np.float64) for weight, _, b in parts])
    a = np.vstack([a.astype(np.float64) for _, a, _ in parts])
    return b, a


def living(found: Svd, rank: int) -> Svd:
    """The leading singular triples, at most `rank`, without those that are rounding noise."""
    if not found.sigma.size or found.sigma[0] == 0.0:
        count = 0
    else:
        count = min(rank, int(np.sum(found.sigma > _DEAD * found.sigma[0])))
    return Svd(found.u[:, :count], found.sigma[:count], found.vt[:count])


def trainable(found: Svd, rank: int, previous_a: Floats) -> tuple[Matrix, Matrix]:
    """Factors A (rank, n), B (m, rank) of the best rank-`rank` approximation, fit to train from.

    A = diag(g)Vᵀ, B = U diag(σ/g) with g = max(√σ, 1/√3): balanced, but no row of A smaller than
    a fresh one. A direction without a singular value gets a row orthogonal to the others, from
    the row space of previous_a (rank, n) if that has one left, and a zero column of B. (√σ alone
    makes both factors zero there, and a module with A = B = 0 has zero gradients for ever.)
    """
    kept = living(found, rank)
    gain = np.maximum(np.sqrt(kept.sigma), INIT_ROW_NORM)
    fill = _complement(kept.vt, previous_a, rank - kept.sigma.size)
    a = np.vstack([gain[:, None] * kept.vt, INIT_ROW_NORM * fill])
    b = np.zeros((found.u.shape[0], rank))
    b[:, : kept.sigma.size] = kept.u * (kept.sigma / gain)
    return a, b


def orthonormal_rows(b: Floats, a: Floats) -> tuple[Floats, Floats]:
    """The same product with A's rows orthonormal and B's columns orthogonal: A (r, n), B (m, r).

    The rows span what a's rows span, also where B is zero; columns of B come strongest first.
    Rows beyond n have nothing left to span: they and their columns of B are zero. Where A's rows
    are nearly orthonormal, as after a round, the results are computed in the precision of b and a
    (float32: 1e-7 of the product); else in float64.
    """
    lower, inverse, rows = _triangular(a)
    sizes = np.abs(np.diag(lower))
    if sizes.min() < 0.3 or sizes.max() > 3.0:
        a, b = a.astype(np.float64), b.astype(np.float64)
    wide = b.astype(np.float64)
    squares = lower.T @ (wide.T @ wide) @ lower
    turn = np.linalg.eigh(squares)[1][:, ::-1]  # orthogonal whatever b is: the product stays
    new_a: Floats = (turn.T @ inverse).astype(a.dtype) @ rows.astype(a.dtype, copy=False)
    new_b: Floats = b @ (lower @ turn).astype(b.dtype)
    if len(new_a) == len(a):
        return new_a, new_b
    padded_a, padded_b = np.zeros_like(a), np.zeros_like(b)
    padded_a[: len(new_a)], padded_b[:, : len(new_a)] = new_a, new_b
    return padded_a, padded_b


def svd_within(q: Floats, z: Floats) -> Svd:
    """The SVD of QZ for q (m, w) with orthonormal columns, z (w, n), by the eigenvectors of ZZᵀ.

    Six times faster than svd(); singular values below 10⁻⁶ of the largest are lost to rounding,
    which living() drops anyway.
    """
    q, z = q.astype(np.float64), z.astype(np.float64)
    squares, turn = np.linalg.eigh(z @ z.T)
    sigma = np.sqrt(np.maximum(squares[::-1], 0.0))
    turn = turn[:, ::-1]
    alive = sigma > _DEAD * sigma[0]
    inverse = np.where(alive, 1.0 / np.where(alive, sigma, 1.0), 0.0)
    return Svd(q @ turn, np.where(alive, sigma, 0.0), inverse[:, None] * (turn.T @ z))


def compress(b: Floats, a: Floats, max_rank: int) -> tuple[Matrix, Matrix]:
    """Factors A (k, n), B (m, k) of BA with k its numerical rank, at most max_rank."""
    kept = living(svd(b, a), max_rank)
    root = np.sqrt(kept.sigma)
    return root[:, None] * kept.vt, kept.u * root


def range_basis(sample: Floats) -> Matrix:
    """Q (m, w) with orthonormal columns that span those of a sketch Y = MΩ (m, w).

    Halko, Martinsson, Tropp 2011 (arXiv:0909.4061), Alg. 4.1: ‖M − QQᵀM‖ is of the size of the
    (w+1)-th singular value of M, and zero if rank M ≤ w.
    """
    _, inverse, rows = _triangular(sample.T)
    return np.asarray((inverse @ rows).T)


def raw_bits(count: int, *labels: str | int) -> NDArray[np.uint64]:
    """`count` public pseudo-random words, the same on every machine and numpy version.

    Philox keyed with SHA-256 of the labels: numpy promises that bit generators' raw streams never
    change (NEP 19), which it does not for the distributions drawn from them.
    """
    key = hashlib.sha256(b"nomoat public randomness\0" + repr(labels).encode()).digest()[:16]
    words = np.random.Philox(key=int.from_bytes(key, "little")).random_raw(count)
    return np.asarray(words, np.uint64)


def sketch_matrix(rows: int, width: int, *labels: str | int) -> Matrix:
    """Ω (rows, width): independent, bell-shaped, mean 0, variance 1/width; ‖MΩ‖_F ≈ ‖M‖_F.

    Each value counts the ones among 64 fair bits, (count − 32)/4 before scaling: integer
    arithmetic, so that all sides draw the same, which a logarithm or a cosine of each platform's
    own would not promise.
    """
    ones = np.bitwise_count(raw_bits(rows * width, *labels)).reshape(rows, width)
    return np.asarray((ones - 32.0) / (4.0 * np.sqrt(width)))


def fresh_rows(rank: int, width: int, *labels: str | int) -> Matrix:
    """A new A (rank, width), uniform in ±1/√width as PEFT's (Kaiming with a = √5)."""
    unit = (raw_bits(rank * width, *labels) >> np.uint64(11)) * 2.0**-53
    return np.asarray((2.0 * unit - 1.0).reshape(rank, width) / np.sqrt(width))


def _triangular(a: Floats) -> tuple[Matrix, Matrix, Floats]:
    """(L, M, C) with A = L(MC) and the rows of MC orthonormal; a (r, n), L and M (r, r) float64.

    By Cholesky of AAᵀ where A is well conditioned, as after a round it is (M = L⁻¹, C = A, so
    that a caller can join further small factors to M first); else by Householder (M = 1), which
    is ten times slower and never fails.
    """
    wide = a.astype(np.float64)
    try:
        lower = np.linalg.cholesky(wide @ wide.T)
    except np.linalg.LinAlgError:
        lower = np.zeros((1, 1))
    sizes = np.abs(np.diag(lower))
    if sizes.min() > 1e-3 * sizes.max():
        return np.asarray(lower), np.asarray(np.linalg.inv(lower)), a
    q, r = np.linalg.qr(wide.T)
    return np.asarray(r.T), np.eye(len(r)), np.asarray(q.T)


def _complement(rows: Matrix, pool: Floats, count: int) -> Matrix:
    """`count` orthonormal rows orthogonal to orthonormal `rows`, from pool's row space first.

    Zero rows where the space is used up (more modules than columns).
    """
    width = rows.shape[1]
    found = np.zeros((count, width))
    if count == 0:
        return found
    # The noise only decides where the pool has nothing left, as when A was zero.
    spare = 1e-3 * fresh_rows(count, width, "complement")
    rest = np.vstack([pool.astype(np.float64), spare])
    for _ in range(2):  # twice, or rounding leaves a component along `rows`
        rest = rest - (rest @ rows.T) @ rows
    _, _, vt = np.linalg.svd(rest, full_matrices=False)
    room = min(count, width - rows.shape[0])
    found[:room] = vt[:room]
    return found
