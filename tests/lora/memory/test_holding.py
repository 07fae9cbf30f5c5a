"""Programs of one owner hold a base side by side because each says what that takes."""

from __future__ import annotations

import json
from pathlib import Path

from nomoat.lora.memory.holding import holding_bytes
from nomoat.lora.memory.prediction import CONTEXT_BYTES
from nomoat.lora.model.bases.pocket import FOLDER
from nomoat.lora.workers.jobs import ShardJob, TrainJob, need_bytes


def test_a_base_that_is_held_takes_its_weights_a_row_and_a_context() -> None:
    weights = (FOLDER / "model.safetensors").stat().st_size // 2  # stored in 32 bits, held in 16
    whole, packed = holding_bytes(str(FOLDER), None), holding_bytes(str(FOLDER), 4)
    assert whole is not None
    assert packed is not None
    assert CONTEXT_BYTES + weights < packed < whole < CONTEXT_BYTES + (1 << 30)


def test_of_a_family_that_nobody_knows_nothing_is_promised(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mamba"}))
    assert holding_bytes(str(tmp_path), None) is None
    assert holding_bytes(str(tmp_path / "nowhere"), None) is None


def test_a_training_takes_what_was_predicted_for_it_or_nobody_knows() -> None:
    training = object.__new__(TrainJob)
    object.__setattr__(training, "needs_bytes", None)
    assert need_bytes(training, holding=5) is None
    assert need_bytes(ShardJob(Path("x"), 8), holding=5) == 5
