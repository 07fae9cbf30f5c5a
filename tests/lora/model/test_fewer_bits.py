"""Fewer bits, of base or moments, train like all of them and pause with the same bits."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nomoat.aggregation.errors import UsageError
from nomoat.aggregation.protocol.messages import TrainSettings
from nomoat.lora.model.adapter_slot import attach
from nomoat.lora.model.base_model import initial_adapter, load
from nomoat.lora.training import optimizer as training
from nomoat.lora.training.checkpoint import Paused, TrainingCheckpoint
from nomoat.lora.training.progress import Breaks
from nomoat.lora.training.train import Given, train
from nomoat.simulations.pocket import MODEL_DIR

SETTINGS = TrainSettings(local_steps=8, batch_size=6, seq_len=64, learning_rate=1e-2)
needs_bits = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed"
)


@pytest.mark.parametrize(
    ("bits", "adam_8bit"),
    [
        (16, False),
        pytest.param(4, False, marks=needs_bits),
        pytest.param(8, False, marks=needs_bits),
        pytest.param(None, True, marks=needs_bits),
    ],
)
def test_fewer_bits_learn_and_pause_like_all_of_them(
    bits: int | None, adam_8bit: bool, conversations: Any
) -> None:
    from nomoat.lora.data.encoding import Encoder
    from nomoat.lora.model.adapter_spec import new_spec

    base = load(str(MODEL_DIR), "cpu", bits=bits)
    spec = new_spec(base.model.config, 4, 8.0)
    model, start = attach(base, spec), initial_adapter(spec, b"i")
    examples = Encoder.of(base.tokenizer, 64).encode_all(conversations).examples
    kept: list[TrainingCheckpoint] = []

    def stop(taken: Any) -> None:
        kept.append(taken())
        if len(kept) == 5:
            raise Paused

    def go(breaks: Breaks) -> Any:
        return train(model, start, examples, SETTINGS, b"s", lambda: 0.0, Given(None, breaks))

    whole = go(Breaks(adam_8bit=adam_8bit))
    assert whole.last_loss < 0.8 * whole.first_loss
    with pytest.raises(Paused):
        go(Breaks(between=stop, adam_8bit=adam_8bit))
    again = go(Breaks(resume=kept[-1], adam_8bit=adam_8bit))
    assert np.array_equal(again.vector, whole.vector)


def test_without_the_extra_it_is_refused_in_one_line(
    model_folder: Path, model: Any, spec: Any, examples: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "bitsandbytes" else real(name)
    )
    with pytest.raises(UsageError, match=r"^a base of 4 bits needs .* pip install bitsandbytes$"):
        load(str(model_folder), "cpu", bits=4)

    def missing(_name: str) -> None:
        raise ImportError

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(UsageError, match=r"8-bit Adam needs .* pip install bitsandbytes$"):
        train(
            model, initial_adapter(spec, b"i"), examples, SETTINGS, b"s", lambda: 0.0,
            Given(None, Breaks(adam_8bit=True)),
        )  # fmt: skip


def test_moments_that_cannot_be_kept_are_missed_in_one_line(
    model: Any,
    spec: Any,
    examples: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    import torch

    packing = SimpleNamespace(optim=SimpleNamespace(AdamW8bit=torch.optim.AdamW))
    monkeypatch.setattr(training, "check_bitsandbytes", lambda *_: packing)
    start, given = initial_adapter(spec, b"i"), Given(None, Breaks(adam_8bit=True))
    train(model, start, examples, SETTINGS, b"s", lambda: 0.0, given)
    assert not caplog.records
    keep = replace(SETTINGS, keep_moments=True)
    assert train(model, start, examples, keep, b"s", lambda: 0.0, given).moments is None
    (said,) = caplog.records
    assert said.levelname == "WARNING"
    assert "8-bit Adam" in said.getMessage()
