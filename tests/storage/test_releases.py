"""An older release that meets a newer one's file says so, and does not call it damaged."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from nomoat.aggregation.errors import NomoatError
from nomoat.storage.releases import record


@dataclass(frozen=True)
class Kept:
    steps: int
    weak: bool = False


def test_what_a_newer_release_wrote_is_neither_damaged_nor_passed_over() -> None:
    where = Path("agreed.json")
    assert record(Kept, {"steps": 3}, where) == Kept(3)
    with pytest.raises(NomoatError, match=r"newer release of nomoat \('noise' is unknown here\)"):
        record(Kept, {"steps": 3, "noise": 1.5}, where)
    with pytest.raises(TypeError):
        record(Kept, {"weak": True}, where)
