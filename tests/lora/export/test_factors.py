"""Factors of any plain LoRA folder, and several adapters as one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nomoat.aggregation.errors import BadData, UsageError
from nomoat.aggregation.protocol.adapter import Adapter, AdapterSpec, LayerSpec
from nomoat.lora.export import factors as factored
from nomoat.lora.export.side_by_side import side_by_side
from nomoat.lora.model.adapter_folder import save_folder


def drawn(
    seed: int, rank: int, rslora: bool, names: tuple[str, ...] = ("q_proj", "up_proj")
) -> Adapter:
    layers = tuple(
        LayerSpec(f"base_model.model.model.layers.0.{name}", 6, 5, rank) for name in sorted(names)
    )
    spec = AdapterSpec(layers, rank, 3.0, rslora, names)
    vector = np.random.default_rng(seed).standard_normal(spec.size).astype(np.float32)
    return Adapter(spec, vector)


def deltas(adapter: Adapter) -> dict[str, Any]:
    return {
        layer.name: adapter.spec.scale * (b.astype(np.float64) @ a.astype(np.float64))
        for layer, a, b in adapter.factors()
    }


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.25, -2.0)])
def test_ranks_side_by_side_add_exactly_what_both_add(weights: tuple[float, float]) -> None:
    first, second = drawn(1, 3, True), drawn(2, 4, False, ("q_proj", "v_proj"))
    together = side_by_side((first, second), weights)
    assert (together.spec.rank, together.spec.scale) == (7, 1.0)
    expected: dict[str, Any] = {}
    for adapter, weight in zip((first, second), weights, strict=True):
        for name, delta in deltas(adapter).items():
            expected[name] = expected.get(name, 0.0) + weight * delta
    found = deltas(together)
    assert found.keys() == expected.keys()
    for name, delta in expected.items():
        np.testing.assert_allclose(found[name], delta, rtol=1e-5, atol=1e-6)


def test_adapters_of_different_bases_are_not_put_together() -> None:
    first = drawn(1, 2, False)
    layers = tuple(replace(layer, d_in=7) for layer in first.spec.layers)
    spec = replace(first.spec, layers=layers)
    other = Adapter(spec, np.zeros(spec.size, np.float32))
    with pytest.raises(UsageError, match="different bases"):
        side_by_side((first, other))
    with pytest.raises(UsageError, match="weights"):
        side_by_side((first, first), (1.0,))
    with pytest.raises(UsageError, match="rank 1200"):
        side_by_side([drawn(1, 400, False)] * 3)


def test_peft_computes_the_sum_of_both_under_rslora(base: Any, spec: AdapterSpec) -> None:
    import torch
    from peft import PeftModel

    from nomoat.lora.model.adapter_slot import attach, detach, swap

    rng = np.random.default_rng(0)
    spec = replace(spec, rslora=True)
    pair = [
        Adapter(spec, (rng.standard_normal(spec.size) * 0.05).astype(np.float32)) for _ in range(2)
    ]
    ids = torch.tensor([[1, 7, 30, 42]])

    def logits(adapter: Adapter) -> Any:
        model: PeftModel = attach(base, adapter.spec)
        swap(model, adapter)
        with torch.no_grad():
            found = model(input_ids=ids).logits.double()
        detach(model)
        return found

    with torch.no_grad():
        plain = base.model(input_ids=ids).logits.double()
    stacked = logits(side_by_side(pair))
    model = attach(base, spec)
    config = model.peft_config["default"]
    model.add_adapter("second", config)
    swap(model, pair[0])
    swap(model, pair[1], "second")
    model.base_model.set_adapter(["default", "second"])
    with torch.no_grad():
        both = model(input_ids=ids).logits.double()
    detach(model)
    torch.testing.assert_close(stacked, both, rtol=0, atol=1e-4)
    assert (stacked - plain).abs().max() > 0.1


def test_patterns_of_rank_and_alpha_are_folded_as_peft_scales_them(
    model_folder: Path, tmp_path: Path
) -> None:
    import torch
    from peft import LoraConfig, get_peft_model

    from nomoat.lora.model.base_model import load

    model = load(str(model_folder), "cpu").model
    config = LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules=["q_proj", "v_proj", "up_proj"],
        rank_pattern={"v_proj": 2, r"layers\.1\.mlp\.up_proj": 3},
        alpha_pattern={"q_proj": 5},
        use_rslora=True,
        task_type="CAUSAL_LM",
    )
    wrapped = get_peft_model(model, config)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    wrapped.save_pretrained(str(tmp_path))
    found = {factor.module: factor.delta() for factor in factored.of_folder(tmp_path)}
    modules = dict(wrapped.base_model.model.named_modules())
    assert len(found) == 6
    for name, delta in found.items():
        expected = modules[name].get_delta_weight("default").detach().numpy()
        np.testing.assert_allclose(delta, expected, rtol=1e-4, atol=1e-5)


def test_a_folder_gives_the_factors_of_the_adapter_it_holds(tmp_path: Path) -> None:
    adapter = drawn(5, 3, True)
    save_folder(adapter, "a base", tmp_path / "out", "# card\n", bytes(32))
    pairs = zip(factored.of_adapter(adapter), factored.of_folder(tmp_path / "out"), strict=True)
    for ours, theirs in pairs:
        assert ours.module == theirs.module
        np.testing.assert_array_equal(ours.delta(), theirs.delta())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"peft_type": "IA3"}, "does not describe a LoRA"),
        ({"lora_alpha": None}, "lora_alpha"),
        ({"alpha_pattern": {"(": 3}}, "not a pattern"),
    ],
)
def test_what_is_more_than_plain_lora_is_refused_in_one_line(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    save_folder(drawn(5, 3, True), "a base", folder, "# card\n", bytes(32))
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(BadData, match=said):
        factored.of_folder(folder)


def test_a_missing_or_half_factor_is_refused(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    folder = tmp_path / "out"
    with pytest.raises(BadData, match="not an adapter folder"):
        factored.of_folder(folder)
    save_folder(drawn(5, 3, True), "a base", folder, "# card\n", bytes(32))
    tensors = load_file(folder / "adapter_model.safetensors")
    tensors.pop(next(name for name in tensors if "lora_B" in name))
    save_file(tensors, folder / "adapter_model.safetensors")
    with pytest.raises(BadData, match="two factors"):
        factored.of_folder(folder)
