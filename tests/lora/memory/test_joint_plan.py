"""What several trainings at once take is counted as what one takes, and decides how many go."""

from __future__ import annotations

from typing import Any

import pytest

from nomoat.lora.memory.joint_plan import ONE_AT_A_TIME, joint_plan
from nomoat.lora.memory.prediction import (
    DeviceOverhead,
    TrainingShape,
    Weights,
    activation_bytes,
    predict,
    weight_bytes,
)
from nomoat.lora.model.shape import ModelShape

SIZES = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 176,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 8,
    "vocab_size": 500,
    "tie_word_embeddings": True,
}
MODEL = ModelShape.from_config(SIZES)
BARE = DeviceOverhead(0, 0.0, 0, load_copy=False, quantises=True)
WISH = TrainingShape(4, 32, 4, weights=Weights.FP32)


@pytest.fixture(scope="module")
def adapted() -> Any:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    rest = {key: value for key, value in SIZES.items() if key != "model_type"}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **rest))
    lora = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    return get_peft_model(model, lora).train()


@pytest.mark.parametrize(("volunteers", "rows", "tokens"), [(3, 2, 32), (16, 1, 32)])
def test_what_autograd_keeps_for_several_is_predicted_within_one_percent(
    adapted: Any, volunteers: int, rows: int, tokens: int
) -> None:
    import torch

    from nomoat.aggregation.protocol.messages import TrainSettings
    from nomoat.lora.model.adapter_spec import initial_adapter, new_spec
    from nomoat.lora.training.stacked import StackedFactors

    spec = new_spec(adapted.get_base_model().config, 4, 8.0)
    starts = [initial_adapter(spec, bytes([number])) for number in range(volunteers)]
    stacks = StackedFactors(adapted, starts, [None] * volunteers, TrainSettings())
    seen: dict[int, int] = {}
    alive = []
    with stacks.in_place(adapted):
        weights = (*adapted.parameters(), *adapted.buffers(), *stacks.named().values())
        known = {weight.untyped_storage().data_ptr() for weight in weights}

        def pack(tensor: Any) -> Any:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in known:
                seen[storage.data_ptr()] = storage.nbytes()
                alive.append(tensor)
            return tensor

        ids = torch.randint(3, 500, (volunteers * rows, tokens))
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            adapted.get_base_model().model(input_ids=ids, use_cache=False)
    wish = TrainingShape(rows, tokens, 4, weights=Weights.FP32, volunteers=volunteers)
    assert activation_bytes(MODEL, wish) == pytest.approx(sum(seen.values()), rel=0.01)


def test_the_group_shrinks_with_the_memory_and_one_volunteer_is_never_refused() -> None:
    need = predict(MODEL, TrainingShape(4, 32, 4, weights=Weights.FP32, volunteers=64), BARE)
    whole = joint_plan(MODEL, WISH, 64, need.total, BARE)
    assert (whole.volunteers, whole.most_tokens) == (64, 64 * 4 * 32)
    assert whole.needs_bytes == need.total
    lower = joint_plan(MODEL, WISH, 64, need.total - 1, BARE)
    assert (lower.volunteers, lower.most_tokens) == (64, 64 * 2 * 32)  # passes of half the rows
    budgets = range(need.total, weight_bytes(MODEL, Weights.FP32), -need.total // 40)
    sizes = [joint_plan(MODEL, WISH, 64, budget, BARE).volunteers for budget in budgets]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) > 2
    assert joint_plan(MODEL, WISH, 64, 0, BARE) == ONE_AT_A_TIME
