"""A coordinator has one volunteer work otherwise than all others: no sum of such vectors is made.

If the others' vectors are zeros, or known, the sum over everybody is the one volunteer's update.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nomoat.aggregation import methods
from nomoat.aggregation.protocol.adapter import as_bytes
from tests.hostile.coordinator import ONE_STEP_OVER_ALL_ROWS, SPEC, Sum, Town

OTHERWISE: dict[str, dict[str, Any]] = {
    "no learning rate": {"settings": replace(ONE_STEP_OVER_ALL_ROWS, learning_rate=0.0)},
    "hardly one": {"settings": replace(ONE_STEP_OVER_ALL_ROWS, learning_rate=1e-12)},
    "neither factor": {"settings": replace(ONE_STEP_OVER_ALL_ROWS, train_a=False, train_b=False)},
    "held to the start": {"settings": replace(ONE_STEP_OVER_ALL_ROWS, prox=100.0)},
    "another seed": {"seed": b"t" * 32},
    "another method": {"method": "fedrot"},
}


@pytest.fixture
def town(tmp_path: Path) -> Town:
    """Nine volunteers with the default policy: not weak."""
    return Town(tmp_path, 9)


def without(found: Sum | None, name: str) -> bool:
    return found is None or name not in found.members


@pytest.mark.parametrize("first", [True, False], ids=["offer of the one", "offer of the others"])
@pytest.mark.parametrize("changes", OTHERWISE.values(), ids=OTHERWISE)
def test_one_that_trained_otherwise_is_in_no_sum_with_the_others(
    town: Town, changes: dict[str, Any], first: bool
) -> None:
    if first:
        town.train(1, town.names[1:], **changes)
        town.train(1, ["v1"])
    else:
        town.train(1, ["v1"])
        town.train(1, town.names[1:], **changes)
    assert without(town.sum(1), "v1")


@pytest.mark.parametrize("first", [True, False], ids=["offer of the one", "offer of the others"])
def test_one_that_was_told_another_reply_is_in_no_sum_with_the_others(
    town: Town, first: bool
) -> None:
    """Where the others project on nothing, the second exchange's sum is the one's alone."""
    town.train(1, method="fedask")
    assert town.sum(1, method="fedask") is not None
    size = methods.get("fedask").manifest(SPEC, 1, 1).size
    nothing, all_of_it = (as_bytes(np.full(size, x, np.float32)) for x in (0.0, 0.1))
    told = {"v1": all_of_it} if not first else dict.fromkeys(town.names[1:], nothing)
    reply = all_of_it if first else nothing
    found = town.sum(1, exchange=2, method="fedask", reply=reply, told=told)
    assert without(found, "v1")
