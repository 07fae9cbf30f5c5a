"""The rows on memory hold where a processor's tensors are counted like a card's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nomoat.lora.gpu_check import memory
from nomoat.lora.gpu_check.row import CheckPlace
from nomoat.lora.training.pieces.recordings import LEAST_PIECES
from tests.fake_gpu.budget import CardMemory


@pytest.fixture
def place(tmp_path: Path, model_folder: Path) -> CheckPlace:
    return CheckPlace("cuda", str(model_folder), tmp_path)


def test_a_base_that_does_not_fit_is_refused_in_one_line(
    place: CheckPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "LITTLE_BYTES", 1 << 14)  # this base is smaller
    with CardMemory() as card:
        card.stand_in(monkeypatch)
        seen = memory.does_not_fit(place)
    assert seen.startswith("exit code 7: the model in ")
    assert card.ooms > 0


def test_memory_that_runs_out_in_the_middle_costs_smaller_pieces_and_nothing_else(
    place: CheckPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert memory.STEPS >= LEAST_PIECES  # so that a card records them
    monkeypatch.setattr(memory, "SETTINGS", replace(memory.SETTINGS, seq_len=32))
    monkeypatch.setattr(memory, "ROWS", 16)
    with CardMemory() as card:
        card.stand_in(monkeypatch)
        seen = memory.runs_out(place)
    assert "shortages at" in seen
    assert card.ooms > 0
