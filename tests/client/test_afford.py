"""The rank a machine affords is the largest that fits, and says so when none does."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nomoat.aggregation.errors import DoesNotFit, UsageError
from nomoat.client import afford, room
from nomoat.client.config import VolunteerSettings
from nomoat.lora.memory import cpu_host, predict
from nomoat.lora.memory_plan import affordable_rank
from nomoat.lora.model_files import config
from nomoat.lora.model_shape import ModelShape

INFO: Any = SimpleNamespace(batch_size=16, seq_len=128)


def settings(base: Path, rank: int | str = "auto", device: str = "cpu") -> VolunteerSettings:
    return VolunteerSettings(
        address="x:1", name="ada", data=Path("d"), base=str(base), rank=rank, device=device
    )


def test_what_the_owner_says_is_what_counts(tmp_path: Path) -> None:
    assert afford.rank_of(settings(tmp_path, 4), INFO) == 4


@pytest.mark.parametrize("spare", [0, 3_000_000, 100_000_000])
def test_the_largest_rank_that_fits_is_chosen(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, spare: int
) -> None:
    model = ModelShape.from_config(config(tiny_model))
    training, host = afford._on_cpu(INFO), cpu_host(room.WORKER_BYTES)
    free = predict(model, training, host).total + spare  # rank 1 just fits
    monkeypatch.setattr(room, "free_bytes", lambda: free)
    found = afford.rank_of(settings(tiny_model), INFO)
    assert found == affordable_rank(model, training, free, host)
    assert predict(model, _ranked(training, found), host).total <= free
    assert found == 1024 or predict(model, _ranked(training, 2 * found), host).total > free


def _ranked(training: Any, rank: int) -> Any:
    from dataclasses import replace

    return replace(training, rank=rank)


def test_a_machine_that_affords_nothing_says_what_is_missing(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "free_bytes", lambda: 1 << 20)
    with pytest.raises(DoesNotFit, match="GiB are free"):
        afford.rank_of(settings(tiny_model), INFO)


def test_a_model_of_unknown_need_asks_for_a_number(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(UsageError, match=r"'gpt2' is not known.*give --rank a number"):
        afford.rank_of(settings(tmp_path), INFO)
