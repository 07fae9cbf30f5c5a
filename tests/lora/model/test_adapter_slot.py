"""Values go into the model and come out unchanged, completely, and by copy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from builders import at_rank
from nomoat.aggregation.errors import BadData, LocalProtocolError
from nomoat.aggregation.protocol.adapter import Adapter, AdapterSpec
from nomoat.lora.model.adapter_slot import attach, detach, extract, slot, swap
from nomoat.lora.model.base_model import BaseModel, new_spec


def _random(spec: AdapterSpec, seed: int, size: float = 0.1) -> Adapter:
    rng = np.random.default_rng(seed)
    return Adapter(spec, (rng.standard_normal(spec.size) * size).astype(np.float32))


def _logits(model: Any) -> Any:
    import torch

    with torch.no_grad():
        return model(input_ids=torch.arange(10, 40).view(2, 15)).logits


def test_what_is_swapped_in_is_what_is_extracted(model: Any, spec: AdapterSpec) -> None:
    for seed in (1, 2):
        adapter = _random(spec, seed)
        swap(model, adapter)
        assert np.array_equal(extract(model, spec), adapter.vector)


def test_an_extracted_vector_is_a_copy_of_a_live_model(model: Any, spec: AdapterSpec) -> None:
    adapter = _random(spec, 1)
    swap(model, adapter)
    taken = extract(model, spec)
    swap(model, _random(spec, 2))  # trap 1: PEFT's own state dict would now hold these
    assert np.array_equal(taken, adapter.vector)
    kept = adapter.vector.copy()
    for parameter in slot(model, spec).values():
        parameter.data.add_(1.0)
    assert np.array_equal(adapter.vector, kept)


def test_a_slot_of_other_keys_or_shapes_is_refused_not_skipped(
    model: Any, spec: AdapterSpec, model_folder: Any
) -> None:
    # Trap 2: PEFT loads a partial or misnamed state in silence and leaves B = 0.
    half = new_spec(str(model_folder), 4, 8.0, ("q_proj",))
    with pytest.raises(LocalProtocolError, match="which the adapter has not"):
        swap(model, _random(half, 1))
    with pytest.raises(LocalProtocolError, match=r"lora_A\.weight is \(4, .*\) in the model"):
        swap(model, _random(at_rank(spec, 2), 1))
    layers = tuple(
        type(x)(x.name.replace("model.layers", "model.blocks"), x.d_out, x.d_in, x.rank)
        for x in spec.layers
    )
    renamed = AdapterSpec(layers, spec.rank, spec.alpha, False, spec.target_modules)
    with pytest.raises(LocalProtocolError, match=r"the model has no .*blocks.*are missing"):
        swap(model, _random(renamed, 1))


def test_attaching_to_another_model_is_refused(base: BaseModel, spec: AdapterSpec) -> None:
    layers = tuple(type(x)(x.name, x.d_out + 1, x.d_in, x.rank) for x in spec.layers)
    other = AdapterSpec(layers, spec.rank, spec.alpha, False, spec.target_modules)
    with pytest.raises(BadData, match="it is another model"):
        attach(base, other)
    missing = AdapterSpec(spec.layers, spec.rank, spec.alpha, False, ("query",))
    with pytest.raises(BadData, match="it is another model"):
        attach(base, missing)
    detach(attach(base, spec))  # neither refusal left anything behind


def test_detaching_gives_the_base_back(base: BaseModel, spec: AdapterSpec) -> None:
    import torch

    names = [name for name, _ in base.model.named_parameters()]
    before = _logits(base.model)
    attached = attach(base, spec)
    swap(attached, _random(spec, 1))
    assert not torch.allclose(_logits(attached), before, atol=1e-3)
    detach(attached)
    assert torch.equal(_logits(base.model), before)
    assert [name for name, _ in base.model.named_parameters()] == names


@pytest.mark.parametrize(("rslora", "scale"), [(False, 2.0), (True, 16 / math.sqrt(8))])
def test_the_model_scales_ba_by_the_specs_scale(
    make_model: Callable[..., Any], base: BaseModel, rslora: bool, scale: float
) -> None:
    # Trap 4: r = 8, α = 16 is 2.0, and 5.657 with rsLoRA.
    import torch

    spec = new_spec(base.model.config, 8, 16.0, "all-linear", rslora)
    assert spec.scale == pytest.approx(scale)
    adapter = _random(spec, 3, 0.05)
    merged = make_model().eval()
    modules = dict(merged.named_modules())
    with torch.no_grad():
        for layer, a, b in adapter.factors():
            name = layer.name.removeprefix("base_model.model.")
            modules[name].weight += scale * torch.from_numpy(b @ a)
    attached = attach(base, spec)
    swap(attached, adapter)
    assert torch.allclose(_logits(attached), _logits(merged), atol=1e-4)
    detach(attached)
