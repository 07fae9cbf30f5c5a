"""A round without masks bears lies where it is asked to, and says so where it cannot."""

from __future__ import annotations

import numpy as np
import pytest

from nomoat.aggregation.errors import UsageError
from nomoat.simulations.scenario import Scenario
from tests.server.rounds.test_coordinator import (
    START,
    STEP,
    federation,
    poisoned,
    run,
    vector_bytes,
)

ASKED = ("dee", "query.report")


def test_one_liar_of_four_moves_the_adapter_no_further_than_honest_ones_differ() -> None:
    lie = {ASKED: vector_bytes(lambda vector: vector - np.float32(5))}
    stock = run(lie, federation(rounds=1, tolerance=10.0))[1].state.adapter.vector
    memory, end = run(lie, federation(rounds=1, tolerance=10.0, robust=0.25))
    assert memory.records[-1].committed
    moved = np.abs(end.state.adapter.vector - START.vector)
    assert np.all((moved > STEP * 0.99) & (moved < STEP * 1.3))
    assert np.abs(stock - START.vector).max() > 100 * STEP


def test_fewer_sound_reports_than_the_share_needs_abandon_the_round() -> None:
    bad = {(name, ASKED[1]): vector_bytes(poisoned) for name in ("cy", "dee")}
    memory, _ = run(bad, federation(rounds=1, robust=0.25))
    last = memory.records[-1]
    assert not last.committed
    assert set(last.refused) == {"cy", "dee"}
    assert "2 reports bear no 1 lies" in last.reason


def test_a_robust_mean_is_refused_under_masks_and_for_methods_without_a_mean() -> None:
    with pytest.raises(UsageError, match="no-secure"):
        Scenario(robust=0.2)
    with pytest.raises(UsageError, match="flora takes no mean"):
        Scenario(robust=0.2, secure=False, method="flora")
    assert Scenario(robust=0.2, secure=False).chosen.method().name == "fedavg"
