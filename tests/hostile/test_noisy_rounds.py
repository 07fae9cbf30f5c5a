"""Rounds with noise in their sums: they are kept, and volunteers stop when it is enough."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nomoat.aggregation.secagg.parameters import NoiseRule
from tests.hostile.members import Village

NOISE = {"norm_bound": 0.05, "noise_multiplier": 0.3}


def test_a_sum_has_the_noise_that_was_asked_for_and_the_round_is_kept(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    plain = Village(tmp_path / "a", 8)
    noisy = Village(tmp_path / "b", 8)
    plain.run(1, norm_bound=0.05)
    (record,) = noisy.run(1, **NOISE)
    assert record.committed
    assert len(record.contributors) == 8
    assert plain.log.checkpoint is not None
    assert noisy.log.checkpoint is not None
    moved = noisy.log.checkpoint.state.adapter.vector - plain.log.checkpoint.state.adapter.vector
    honest = 6 - 2  # of the fewest who survive, those who cannot collude
    expected = 0.3 * 0.05 / np.sqrt(8 * honest)
    assert np.std(moved) == pytest.approx(expected, rel=0.35)  # few coordinates


def test_volunteers_are_in_as_many_sums_as_was_agreed_and_then_in_none(tmp_path: Path) -> None:
    village = Village(tmp_path, 8, noise=NoiseRule(0.3, 2))
    first, second, third = village.run(3, **NOISE)
    assert first.committed
    assert second.committed
    assert not third.committed
    assert third.contributors == ()


def test_a_coordinator_with_less_noise_than_agreed_gets_no_sum(tmp_path: Path) -> None:
    village = Village(tmp_path, 8, noise=NoiseRule(0.4, 9))
    (record,) = village.run(1, **NOISE)
    assert not record.committed
    assert record.contributors == ()
