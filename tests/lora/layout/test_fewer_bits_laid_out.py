"""A base in 4 or 8 bits keeps its loss and gradient where its embedding or layers lie elsewhere."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from nomoat.lora.gpu_check.sample_task import apart, step_gradient
from nomoat.lora.layout.parts import Layout
from nomoat.lora.layout.placing import is_laid_out
from nomoat.lora.model.base_model import load, new_spec

pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")


@pytest.fixture(scope="module", params=["tied", "two matrices"])
def wide(request: Any, tmp_path_factory: Any, make_tokenizer: Any) -> Path:
    """A base whose maps are wide enough for blocks of 64 values."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=320, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256,
        tie_word_embeddings=request.param == "tied", initializer_range=0.1,
        bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    folder: Path = tmp_path_factory.mktemp("wide")
    LlamaForCausalLM(config).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("layout", [Layout(False, True), Layout(True), Layout(True, True)])
def test_a_step_is_that_of_the_same_bits_held_whole(
    wide: Path, examples: Any, bits: int, layout: Layout
) -> None:
    spec = new_spec(str(wide), 4, 8.0)
    whole = load(str(wide), "cpu", bits=bits)
    wanted_loss, wanted = step_gradient(whole, spec, examples[:6])
    exact_loss, _ = step_gradient(load(str(wide), "cpu"), spec, examples[:6])
    base = load(str(wide), "cpu,cpu" if layout.over_gpus else "cpu", bits=bits, layout=layout)
    assert is_laid_out(base.model)
    assert getattr(base.model, "hf_device_map", None) is None
    loss, gradient = step_gradient(base, spec, examples[:6])
    assert loss == pytest.approx(wanted_loss, rel=1e-6)
    assert loss != exact_loss
    assert apart(gradient, wanted) < 1e-6


def test_the_folder_is_not_written_to(wide: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copy"
    shutil.copytree(wide, copied)
    before = sorted(file.stat().st_mtime_ns for file in copied.iterdir())
    load(str(copied), "cpu", bits=4, layout=Layout(False, True))
    assert sorted(file.stat().st_mtime_ns for file in copied.iterdir()) == before
