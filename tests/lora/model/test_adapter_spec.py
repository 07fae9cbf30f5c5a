"""An adapter's layers are PEFT's, on the right modules; everyone starts from the same values."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nomoat.aggregation.errors import BadData, UsageError
from nomoat.aggregation.protocol.adapter import AdapterSpec
from nomoat.lora.model.base_model import initial_adapter, new_spec


def test_names_and_shapes_are_those_of_pefts_state(make_model: Callable[..., Any]) -> None:
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict

    model = make_model()
    spec = new_spec(model.config, 3, 6.0)
    config = LoraConfig(r=3, lora_alpha=6, target_modules="all-linear", task_type="CAUSAL_LM")
    state = get_peft_model_state_dict(get_peft_model(model, config))
    assert {t.name: t.shape for t in spec.manifest.tensors} == {
        name: tuple(value.shape) for name, value in state.items()
    }
    assert "lm_head" not in spec.target_modules
    assert spec.target_modules == (
        "down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj",
    )  # fmt: skip


def test_chosen_modules_only(model_folder: Path) -> None:
    spec = new_spec(str(model_folder), 2, 4.0, ("q_proj", "v_proj"), rslora=True)
    assert {layer.name.rpartition(".")[2] for layer in spec.layers} == {"q_proj", "v_proj"}
    assert len(spec.layers) == 4
    assert spec.rslora


@pytest.mark.parametrize("target", ["query", "lm_head", "embed_tokens", "norm"])
def test_a_target_that_is_no_linear_layer_is_refused_with_those_there_are(
    model_folder: Path, target: str
) -> None:
    with pytest.raises(UsageError, match=rf"no target module '{target}'.* down_proj, gate_proj"):
        new_spec(str(model_folder), 2, 4.0, ("q_proj", target))


def test_a_model_that_writes_no_text_has_no_spec() -> None:
    from transformers import ViTConfig

    with pytest.raises(BadData, match="ViTConfig is not a causal language model"):
        new_spec(ViTConfig(), 2, 4.0)


def test_transposed_linear_layers_are_read_the_right_way_round() -> None:
    from transformers import GPT2Config

    config = GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=50, n_positions=32)
    layers = {x.name.rpartition(".")[2]: x for x in new_spec(config, 2, 4.0, ("c_attn",)).layers}
    assert (layers["c_attn"].d_out, layers["c_attn"].d_in) == (48, 16)


def test_initial_adapter_is_pefts_distribution_and_a_function_of_the_seed(
    spec: AdapterSpec,
) -> None:
    first, again = initial_adapter(spec, b"1"), initial_adapter(spec, b"1")
    assert first.digest == again.digest
    assert first.digest != initial_adapter(spec, b"2").digest
    for layer, a, b in first.factors():
        bound = 1 / math.sqrt(layer.d_in)
        assert not b.any()
        assert 0.8 * bound < np.abs(a).max() <= bound
        assert abs(a.std() - bound / math.sqrt(3)) < 0.2 * bound


def test_initial_adapter_is_the_same_on_every_machine() -> None:
    from nomoat.aggregation.protocol.adapter import LayerSpec

    spec = AdapterSpec((LayerSpec("w", 2, 4, 1),), 1, 2.0)
    drawn = initial_adapter(spec, b"pinned").vector.tolist()
    assert drawn == [
        0.012333512306213379,
        -0.44333457946777344,
        0.43035465478897095,
        0.20083367824554443,
        0.0,
        0.0,
    ]
