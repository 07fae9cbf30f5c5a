"""Trap 11: an adapter belongs to the very weights it was trained and evaluated on."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from nomoat.aggregation.errors import BadData
from nomoat.aggregation.protocol.adapter import Adapter, AdapterSpec
from nomoat.aggregation.protocol.messages import TrainSettings
from nomoat.client.membership.base_model import check_base
from nomoat.lora.model.adapter_slot import attach, detach, save_folder
from nomoat.lora.model.base_model import content_hash, initial_adapter, load
from nomoat.lora.training.evaluate import evaluate
from nomoat.lora.training.train import train


@pytest.fixture(scope="module")
def coarse_folder(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model with its linear layers rounded to 4 bits, in blocks of 16 values."""
    folder = tmp_path_factory.mktemp("coarse") / "model"
    shutil.copytree(model_folder, folder)
    weights = load_file(folder / "model.safetensors")
    for name, values in weights.items():
        if name.endswith("_proj.weight"):
            blocks = values.reshape(-1, 16)
            step = np.abs(blocks).max(axis=1, keepdims=True) / 7
            weights[name] = (np.rint(blocks / step) * step).reshape(values.shape)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_an_adapter_says_which_base_it_was_evaluated_on_and_another_is_refused(
    model_folder: Path, coarse_folder: Path, spec: AdapterSpec, examples: Any, tmp_path: Path
) -> None:
    losses = {}
    start, settings = initial_adapter(spec, b"i"), TrainSettings(local_steps=30, seq_len=64)
    coarse = load(str(coarse_folder), "cpu")
    model = attach(coarse, spec)
    trained = train(model, start, examples, settings, b"s", lambda: 0.0)
    adapter = Adapter(spec, trained.vector)
    losses["coarse"] = evaluate(model, adapter, examples, 16).loss
    detach(model)
    model = attach(load(str(model_folder), "cpu"), spec)
    losses["fine"] = evaluate(model, adapter, examples, 16).loss
    detach(model)
    assert abs(losses["fine"] - losses["coarse"]) > 1e-3  # it is not the same model

    save_folder(adapter, "tiny", tmp_path / "adapter", "a card", coarse.base_hash)
    with safe_open(tmp_path / "adapter" / "adapter_model.safetensors", "np") as file:
        named = bytes.fromhex(file.metadata()["nomoat_base"])
    assert named == content_hash(coarse_folder) != content_hash(model_folder)
    check_base(str(coarse_folder), named, "us")
    with pytest.raises(BadData, match="is not the base model of us"):
        check_base(str(model_folder), named, "us")
