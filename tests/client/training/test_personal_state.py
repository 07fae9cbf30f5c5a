"""What a volunteer keeps survives a restart, privately, and a round can be begun again."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import pytest

from builders import adapter
from nomoat.client.training.personal_state import DiskPersonalStates, PersonalState
from nomoat.lora.training.moments import Moments

BROADCAST = b"the one at hand".ljust(32)


def kept(number: int, full: bool = True, start: bytes | None = None) -> PersonalState:
    """Of a committed round, unless it started from BROADCAST."""
    start = start or number.to_bytes(32, "big")
    if not full:
        return PersonalState(number, start, adapter(number), (0, 1))
    moments = Moments(adapter(5).vector, adapter(6).vector, 3, 4)
    return PersonalState(number, start, adapter(number), (1, 0), moments, adapter(7))


@pytest.mark.parametrize("full", [False, True])
def test_what_is_kept_comes_back_as_it_was_and_is_private(tmp_path: Path, full: bool) -> None:
    DiskPersonalStates(tmp_path / "kept").save(kept(4, full))
    again = DiskPersonalStates(tmp_path / "kept").newest(5, BROADCAST)
    assert again is not None
    assert (again.round, again.modules) == (4, (1, 0) if full else (0, 1))
    assert again.trained.digest == adapter(4).digest
    assert (again.moments is None) == (again.personal is None) == (not full)
    if again.moments is not None and again.personal is not None:
        assert np.array_equal(again.moments.mean, adapter(5).vector)
        assert np.array_equal(again.moments.square, adapter(6).vector)
        assert (again.moments.steps_a, again.moments.steps_b) == (3, 4)
        assert again.personal.digest == adapter(7).digest
    (file,) = (tmp_path / "kept").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_round_that_is_begun_again_starts_from_the_round_before(tmp_path: Path) -> None:
    store = DiskPersonalStates(tmp_path)
    assert store.newest(9, BROADCAST) is None
    for number in (1, 2, 5):
        store.save(kept(number))
        before = store.newest(number, BROADCAST)
        assert (None if before is None else before.round) == {1: None, 2: 1, 5: 2}[number]
    assert len(list(tmp_path.iterdir())) == 2  # older ones are gone
    newest = store.newest(99, BROADCAST)
    assert newest is not None
    assert newest.round == 5


def test_what_was_trained_in_rounds_that_were_abandoned_is_not_gone_on_from(
    tmp_path: Path,
) -> None:
    """Their A was put back; a B learnt beside it belongs to nothing."""
    store = DiskPersonalStates(tmp_path)
    store.save(kept(1))
    for number in (2, 3, 4):  # abandoned, one after the other
        store.save(kept(number, start=BROADCAST))
        before = store.newest(number + 1, BROADCAST)
        assert before is not None
        assert before.round == 1
        candidate = store.newest(number + 1, b"what it may lead to")
        assert candidate is not None
        assert candidate.round == number  # while it is measured, it counts
    assert len(list(tmp_path.iterdir())) == 2


def test_a_damaged_file_is_passed_over_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = DiskPersonalStates(tmp_path)
    store.save(kept(1))
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:100])
    assert store.newest(2, BROADCAST) is None
    assert "what was kept from round 1 is left out" in caplog.text
    store.save(kept(2))
    assert store.newest(3, b"other") is not None


def test_other_files_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    store = DiskPersonalStates(tmp_path)
    for number in (1, 2, 3):
        store.save(kept(number, full=False))
    assert (tmp_path / "notes.txt").read_text() == "mine"
