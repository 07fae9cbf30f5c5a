"""Products of thin factors: equal to the dense computation, fit to train from, reproducible."""

from __future__ import annotations

import numpy as np
import pytest

from nomoat.aggregation.methods import lowrank

PINNED_WORDS = ["1547abf78b5fd021", "d9eb2c70fa5d9f0f", "f488e34ab7848265"]
PINNED_OMEGA = [0.35355339059327373, 1.0606601717798212, -0.5303300858899106, 1.0606601717798212]


def factors(m=30, n=50, k=6, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(m, k)), rng.normal(size=(k, n))


@pytest.mark.parametrize("shape", [(30, 50, 6), (50, 30, 6), (5, 50, 6), (30, 4, 6), (6, 6, 6)])
def test_svd_of_factors_is_the_dense_svd(shape):
    b, a = factors(*shape)
    found = lowrank.svd(b, a)
    dense = np.linalg.svd(b @ a, compute_uv=False)[: found.sigma.size]
    assert np.allclose(found.sigma, dense, rtol=1e-10, atol=1e-10)
    assert np.allclose((found.u * found.sigma) @ found.vt, b @ a, atol=1e-10)
    assert np.allclose(found.u.T @ found.u, np.eye(found.sigma.size), atol=1e-10)


def test_no_dense_matrix_is_built(monkeypatch):
    """A 20 000 × 20 000 product would need 3.2 GB."""
    b, a = factors(20_000, 20_000, 3)
    largest = []
    original = np.linalg.svd
    monkeypatch.setattr(np.linalg, "svd", lambda m, **o: largest.append(m.size) or original(m, **o))
    found = lowrank.svd(b, a)
    assert max(largest) == 9
    assert found.u.shape == (20_000, 3)


def test_stack_is_the_weighted_sum_of_products():
    parts = [(0.1 * i + 0.1, *factors(k=i + 1, seed=i)[::-1]) for i in range(4)]
    b, a = lowrank.stack(parts)
    assert np.allclose(b @ a, sum(p * y @ x for p, x, y in parts))


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_trainable_is_the_best_approximation(rank):
    b, a = factors()
    new_a, new_b = lowrank.trainable(lowrank.svd(b, a), rank, a[:rank])
    u, s, vt = np.linalg.svd(b @ a)
    assert np.allclose(new_b @ new_a, (u[:, :rank] * s[:rank]) @ vt[:rank], atol=1e-9)


@pytest.mark.parametrize("size", [1.0, 1e-5])
@pytest.mark.parametrize("living", [0, 1, 3])
def test_trainable_has_no_dead_module(living, size):
    """Directions without a singular value get rows that can learn, orthogonal to the others.

    And a product as small as after a first round must not shrink A, or B would hardly move.
    """
    b, a = factors(k=6)
    b *= size
    b[:, living:] = 0
    new_a, new_b = lowrank.trainable(lowrank.svd(b, a), 6, a)
    assert np.allclose(new_b @ new_a, b @ a, atol=1e-9)
    norms = np.linalg.norm(new_a, axis=1)
    assert norms.min() >= lowrank.INIT_ROW_NORM * (1 - 1e-9)
    cosines = (new_a @ new_a.T) / np.outer(norms, norms)
    assert np.allclose(cosines, np.eye(6), atol=1e-9)
    inside = a.T @ np.linalg.lstsq(a.T, new_a.T, rcond=None)[0]
    assert np.allclose(inside, new_a.T, atol=1e-2)  # old rows" space is kept, not thrown away


def test_trainable_survives_an_adapter_of_zeros():
    new_a, new_b = lowrank.trainable(
        lowrank.svd(np.zeros((7, 3)), np.zeros((3, 9))), 3, np.zeros((3, 9))
    )
    assert np.allclose(new_a @ new_a.T, np.eye(3) / 3, atol=1e-9)
    assert not new_b.any()


def test_trainable_copes_with_more_modules_than_columns():
    b, a = factors(7, 2, 4)
    new_a, new_b = lowrank.trainable(lowrank.svd(b, a), 4, a)
    assert new_a.shape == (4, 2)
    assert np.allclose(new_b @ new_a, b @ a)


def test_orthonormal_rows_keep_product_and_row_space():
    b, a = factors()
    for scale in (1.0, 0.0):
        new_a, new_b = lowrank.orthonormal_rows(b * scale, a)
        assert np.allclose(new_a @ new_a.T, np.eye(6), atol=1e-12)
        assert np.allclose(new_b @ new_a, scale * b @ a, atol=1e-10)
        assert np.allclose((a @ new_a.T) @ new_a, a, atol=1e-10)


@pytest.mark.parametrize("spread", [1.0, 0.1, 0.001])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_orthonormal_rows_of_float32_factors_are_exact_however_alike_the_rows(spread, dtype):
    """Columns of B cancel, so that errors of L and of its inverse would show in the product."""
    rng = np.random.default_rng(5)
    a = (rng.normal(size=(1, 300)) + spread * rng.normal(size=(8, 300))) / np.sqrt(300)
    b = rng.normal(size=(200, 8))
    a, b = a.astype(dtype), (b - b.mean(1, keepdims=True)).astype(np.float32)
    new_a, new_b = lowrank.orthonormal_rows(b, a)
    wanted = b.astype(np.float64) @ a.astype(np.float64)
    kept_a, kept_b = (x.astype(np.float32).astype(np.float64) for x in (new_a, new_b))
    assert np.abs(kept_a @ kept_a.T - np.eye(8)).max() < 1e-6
    assert np.linalg.norm(kept_b @ kept_a - wanted) < 1e-6 * np.linalg.norm(wanted)


def test_columns_of_b_come_apart_and_in_order_though_float32_and_of_very_different_size():
    """Volunteers of lower rank train the first; in float32 squares the weak ones would be noise."""
    rng = np.random.default_rng(6)
    a = np.linalg.qr(rng.normal(size=(300, 5)))[0].T.astype(np.float32)
    b = (rng.normal(size=(200, 5)) * 10.0 ** -np.arange(5.0)).astype(np.float32)
    mixed = np.linalg.qr(rng.normal(size=(5, 5)))[0].astype(np.float32)
    _, new_b = lowrank.orthonormal_rows(b @ mixed.T, mixed @ a)
    sizes = np.linalg.norm(new_b, axis=0)
    assert (sizes[:-1] > 5 * sizes[1:]).all()
    cosines = (new_b / sizes).T @ (new_b / sizes)
    assert np.abs(cosines - np.eye(5)).max() < 0.05


def test_orthonormal_rows_of_tiny_float32_rows_do_not_overflow():
    b, a = (x.astype(np.float32) for x in factors())
    new_a, new_b = lowrank.orthonormal_rows(b, a * np.float32(1e-38))
    assert np.allclose(new_a @ new_a.T, np.eye(6), atol=1e-6)
    assert np.isfinite(new_b).all()


def test_turning_factors_again_and_again_does_not_wear_them_out():
    """A community's adapter is turned every round; a thousand rounds change nothing that shows."""
    b, a = (x.astype(np.float32) for x in factors())
    wanted = b.astype(np.float64) @ a.astype(np.float64)
    for _ in range(1000):
        a, b = (x.astype(np.float32) for x in lowrank.orthonormal_rows(b, a))
    assert np.abs(a.astype(np.float64) @ a.T - np.eye(6)).max() < 1e-6
    assert np.linalg.norm(b.astype(np.float64) @ a - wanted) < 1e-4 * np.linalg.norm(wanted)


def test_orthonormal_rows_cope_with_dependent_and_zero_rows():
    """Cholesky fails there, or worse, returns rows that are not orthonormal."""
    for spoil in (0.0, 1e-9, 1e-7, 1e-5):
        b, a = factors()
        a[3] = a[0] + spoil * a[3]
        new_a, new_b = lowrank.orthonormal_rows(b, a)
        assert np.allclose(new_a @ new_a.T, np.eye(6), atol=1e-9)
        assert np.allclose(new_b @ new_a, b @ a, atol=1e-9)
    new_a, _ = lowrank.orthonormal_rows(b, np.zeros_like(a))
    assert np.allclose(new_a @ new_a.T, np.eye(6), atol=1e-9)


def test_more_rows_than_columns_keep_their_shape_and_product():
    rng = np.random.default_rng(3)
    b, a = rng.normal(size=(7, 9)), rng.normal(size=(9, 5))
    new_a, new_b = lowrank.orthonormal_rows(b, a)
    assert (new_a.shape, new_b.shape) == (a.shape, b.shape)
    assert np.allclose(new_b @ new_a, b @ a)
    assert np.allclose(new_a[:5] @ new_a[:5].T, np.eye(5))
    assert not new_a[5:].any()
    assert not new_b[:, 5:].any()


@pytest.mark.parametrize("rank", [0, 2, 5])
def test_svd_within_an_orthonormal_basis_is_the_svd(rank):
    rng = np.random.default_rng(0)
    q, _ = np.linalg.qr(rng.normal(size=(30, 5)))
    z = rng.normal(size=(5, rank)) @ rng.normal(size=(rank, 40))
    found = lowrank.svd_within(q, z)
    assert np.allclose(found.sigma, np.linalg.svd(q @ z, compute_uv=False)[:5], atol=1e-6)
    assert np.allclose((found.u * found.sigma) @ found.vt, q @ z, atol=1e-9)
    assert lowrank.living(found, 5).sigma.size == rank


def test_compress_finds_the_numerical_rank():
    b, a = factors(k=3)
    doubled_b, doubled_a = lowrank.stack([(0.5, a, b), (0.5, a, b), (1e-9, *factors(seed=1)[::-1])])
    small_a, small_b = lowrank.compress(doubled_b, doubled_a, 100)
    assert small_a.shape[0] == 3
    assert np.allclose(small_b @ small_a, b @ a, atol=1e-6)
    assert lowrank.compress(doubled_b, doubled_a, 2)[0].shape[0] == 2
    assert lowrank.compress(0 * b, a, 5)[0].shape[0] == 0


def test_range_basis_holds_a_matrix_of_the_sketchs_rank():
    b, a = factors(k=5)
    omega = lowrank.sketch_matrix(50, 5, "test")
    basis = lowrank.range_basis(b @ (a @ omega))
    assert np.allclose(basis @ (basis.T @ b @ a), b @ a, atol=1e-9)


def test_public_randomness_is_pinned():
    """All sides must draw the same Ω, today and after an upgrade of numpy: bits fixed here."""
    assert [f"{w:016x}" for w in lowrank.raw_bits(3, "fedask", 1, "layer")] == PINNED_WORDS
    assert lowrank.sketch_matrix(2, 2, "fedask", 1, "layer").ravel().tolist() == PINNED_OMEGA


def test_public_randomness_depends_on_every_label():
    draws = {
        lowrank.raw_bits(4, *labels).tobytes()
        for labels in [("a", 1), ("a", 2), ("b", 1), ("a", "1"), ("a1",)]
    }
    assert len(draws) == 5


def test_sketch_matrix_is_bell_shaped_with_the_promised_variance():
    omega = lowrank.sketch_matrix(4000, 25, "moments") * 5
    assert abs(omega.mean()) < 0.01
    assert abs(omega.var() - 1) < 0.02
    assert abs((omega**3).mean()) < 0.03
    assert 2.9 < (omega**4).mean() < 3.04  # a normal variable has 3, 64 coins 2.97
    gram = omega.T @ omega / 4000
    assert np.abs(gram - np.eye(25)).max() < 0.1


def test_fresh_rows_are_drawn_as_peft_draws_them():
    rows = lowrank.fresh_rows(64, 100, "fresh")
    assert np.abs(rows).max() <= 0.1
    assert abs(rows.mean()) < 0.002
    assert np.mean(np.linalg.norm(rows, axis=1)) == pytest.approx(lowrank.INIT_ROW_NORM, rel=0.02)
