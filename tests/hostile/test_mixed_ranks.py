"""The part of an update that one volunteer alone has trained stands in no sum.

With mixed ranks a coordinator need not even lie: the modules that only the strongest machine trains
are that machine's, in the sum of all.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nomoat.aggregation.methods.modules import select
from nomoat.aggregation.protocol.adapter import Adapter
from tests.hostile.coordinator import SPEC, Lies, Sum, Town

NAMES = [f"v{i}" for i in range(1, 11)]


def town(folder: Path, strong: int) -> Town:
    """Ten volunteers, the first so many of whom train both modules and the others one."""
    return Town(folder, 10, ranks=dict.fromkeys(NAMES[strong:], 1))


def of_module(found: Sum, module: int) -> np.ndarray:
    """What a sum holds of one module."""
    whole = Adapter(SPEC, found.total.astype(np.float32))
    return np.abs(select(whole, (module,)).vector)


@pytest.mark.parametrize("method", ["fedavg", "fedrot", "ffa", "rolora", "fedsvd"])
@pytest.mark.parametrize("strong", [1, 7])
def test_a_module_that_too_few_have_trained_is_left_out_of_the_sum(
    tmp_path: Path, strong: int, method: str
) -> None:
    place = town(tmp_path, strong)
    place.train(1, method=method)
    found = place.sum(1, method=method)
    assert found is not None
    assert found.members == set(NAMES)
    if method == "fedavg":
        assert of_module(found, 0).max() > 1e-2
        assert of_module(found, 1).max() < 1e-4  # rounding
    alone = [place.trainers[name].updates[0] for name in NAMES[:strong]]
    assert all(len(update) == SPEC.size for update in alone)


def test_a_module_that_enough_have_trained_is_summed(tmp_path: Path) -> None:
    place = town(tmp_path, 8)
    place.train(1)
    found = place.sum(1)
    assert found is not None
    assert found.members == set(NAMES)
    assert of_module(found, 1).max() > 1e-2


def test_a_coordinator_may_not_ask_for_fewer_than_owners_do(tmp_path: Path) -> None:
    place = town(tmp_path, 2)
    place.train(1)
    assert place.sum(1, n_each=2) is None


def test_those_who_trained_a_module_do_not_sign_that_the_others_of_them_are_gone(
    tmp_path: Path,
) -> None:
    """Ten take part and seven survive, which is enough; of the eight who trained it five do."""
    place = town(tmp_path, 8)
    place.train(1)
    gone = Lies(silenced={"masked": NAMES[3:6]})  # of eight five are left; six hide each other
    found = place.sum(1, lies=gone)
    assert found is None
