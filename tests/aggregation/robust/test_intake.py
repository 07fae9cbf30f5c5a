"""Reports are kept whole, in the order of names, and only sound ones."""

from __future__ import annotations

import numpy as np
import pytest

from builders import SPEC
from nomoat.aggregation.errors import RemoteProtocolError
from nomoat.aggregation.protocol.adapter import as_bytes
from nomoat.aggregation.robust.intake import RobustIntake
from nomoat.aggregation.robust.mean import TooManyFaults, robust_mean
from nomoat.aggregation.sums.norm_bound import NormBound, norm_of

SIZE = SPEC.manifest.size


def vector(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=SIZE).astype(np.float32)


def test_the_order_in_which_reports_arrive_changes_no_bit_of_the_mean() -> None:
    found = []
    for order in ("abcde", "edcba", "cadbe"):
        intake = RobustIntake(SPEC.manifest, 0.2)
        for name in order:
            assert intake.add(name, as_bytes(vector(ord(name))), 1.0) == {}
        assert intake.settle() == {}
        found.append(intake.mean().tobytes())
    assert len(set(found)) == 1
    expected = robust_mean([vector(ord(name)) for name in "abcde"], 1)
    assert found[0] == expected.tobytes()


def test_a_report_with_nan_or_of_another_length_is_refused_by_its_name() -> None:
    intake = RobustIntake(SPEC.manifest, 0.2)
    bad = vector(1)
    bad[3] = np.nan
    for body in (as_bytes(bad), as_bytes(vector(1)[1:])):
        with pytest.raises(RemoteProtocolError) as caught:
            intake.add("eve", body, 1.0)
        assert caught.value.peer == "eve"


def test_too_few_reports_for_the_share_give_no_mean_and_a_bound_scales_down() -> None:
    intake = RobustIntake(SPEC.manifest, 0.4, NormBound(0.5, SIZE))
    for name in ("ada", "ben"):
        intake.add(name, as_bytes(vector(ord(name[0]))), 1.0)
    with pytest.raises(TooManyFaults):
        intake.mean()
    intake.add("cy", as_bytes(vector(3)), 1.0)
    with pytest.raises(TooManyFaults):  # 0.4 of three are two
        intake.mean()
    for name in ("dee", "eve"):
        intake.add(name, as_bytes(vector(ord(name[0]))), 1.0)
    assert 0 < norm_of(intake.mean()) <= 0.5
