from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nomoat.aggregation.errors import DoesNotFit, UsageError
from nomoat.lora.memory.plan import MemoryPlan, plan, shorter
from nomoat.lora.memory.prediction import (
    Attention,
    DeviceOverhead,
    Optimizer,
    TrainingShape,
    Weights,
    activation_bytes,
    backward_bytes,
    cpu_host,
    cuda_host,
    layer_bytes,
    loss_bytes,
    predict,
    weight_bytes,
)
from nomoat.lora.model.shape import GATED_FAMILIES, ModelShape

VOCAB = 500
GIB = 1 << 30


def config(family: str = "llama", **changes: Any) -> dict[str, Any]:
    return {
        "model_type": family,
        "hidden_size": 64,
        "intermediate_size": 176,
        "num_hidden_layers": 3,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 8,
        "vocab_size": VOCAB,
        "tie_word_embeddings": True,
        **changes,
    }


LLAMA_7B = ModelShape.from_config(
    {
        **config(vocab_size=32_000, hidden_size=4096, intermediate_size=11_008),
        **{"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32},
        **{"head_dim": 128, "tie_word_embeddings": False},
    }
)


def build(values: dict[str, Any], meta: bool = False, **options: Any) -> Any:
    """The real transformers model of a config, with random weights or none."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    rest = {k: v for k, v in values.items() if k != "model_type"}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    made = AutoConfig.for_model(values["model_type"], **rest, **ids)
    with torch.device("meta") if meta else contextlib.nullcontext():
        return AutoModelForCausalLM.from_config(made, **options)


@pytest.mark.parametrize("family", GATED_FAMILIES)
@pytest.mark.parametrize("tied", [True, False])
def test_parameters_are_counted_exactly(family: str, tied: bool) -> None:
    values = config(family, tie_word_embeddings=tied)
    model = build(values, meta=True)
    assert ModelShape.from_config(values).parameters == sum(p.numel() for p in model.parameters())


def test_biases_are_counted() -> None:
    values = config(attention_bias=True, mlp_bias=True)
    model = build(values, meta=True)
    assert ModelShape.from_config(values).parameters == sum(p.numel() for p in model.parameters())


def test_seven_billion_is_what_the_paper_says() -> None:
    assert LLAMA_7B.parameters == 6_738_415_616  # Llama 2 7B


def kept_by_autograd(values: dict[str, Any], training: TrainingShape) -> int:
    """Bytes of distinct storages that a real forward pass saves for its backward."""
    import torch
    from peft import LoraConfig, get_peft_model
    from torch.nn import functional

    dtype = torch.float32 if training.weights is Weights.FP32 else torch.bfloat16
    model = build(values, dtype=dtype, attn_implementation=training.attention.value)
    if training.checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    whole = training.target_modules == ("all-linear",)
    targets: Any = "all-linear" if whole else list(training.target_modules)
    lora = LoraConfig(r=training.rank, target_modules=targets, task_type="CAUSAL_LM")
    adapted = get_peft_model(model, lora).train()
    known = {t.untyped_storage().data_ptr() for t in (*adapted.parameters(), *adapted.buffers())}
    seen: dict[int, int] = {}
    alive = []

    def pack(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            seen[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    rows = torch.randint(3, VOCAB, (training.micro_batch, training.seq_len))
    mask = None
    if training.padded:
        mask = torch.ones_like(rows)
        mask[0, 20:] = 0
    precision = (
        torch.autocast("cpu", torch.bfloat16) if training.autocast else contextlib.nullcontext()
    )
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t), precision:
        logits = adapted(input_ids=rows, attention_mask=mask, use_cache=False).logits
        loss = functional.cross_entropy(logits.flatten(0, 1).float(), rows.flatten())
    assert loss.requires_grad
    return sum(seen.values())


BASE = TrainingShape(3, 64, 4, weights=Weights.FP32)
VARIANTS = {
    "float32": BASE,
    "bfloat16": replace(BASE, weights=Weights.BF16),
    "padded": replace(BASE, padded=True),
    "bfloat16 padded": replace(BASE, weights=Weights.BF16, padded=True),
    "checkpointed": replace(BASE, checkpointing=True),
    "bfloat16 checkpointed": replace(BASE, weights=Weights.BF16, checkpointing=True),
    "eager": replace(BASE, attention=Attention.EAGER),
    "bfloat16 eager": replace(BASE, weights=Weights.BF16, attention=Attention.EAGER),
    "two targets": replace(BASE, target_modules=("q_proj", "v_proj")),
    "bfloat16 two targets": replace(
        BASE, weights=Weights.BF16, target_modules=("q_proj", "v_proj")
    ),
    "rank 32": replace(BASE, rank=32),
    "one long row": replace(BASE, micro_batch=1, seq_len=160),
    "autocast": replace(BASE, weights=Weights.BF16, autocast=True),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_what_autograd_keeps_is_predicted_within_one_percent(name: str) -> None:
    training = VARIANTS[name]
    predicted = activation_bytes(ModelShape.from_config(config()), training)
    predicted += training.tokens * VOCAB * 4  # log-probabilities
    assert predicted == pytest.approx(kept_by_autograd(config(), training), rel=0.01)


@pytest.mark.parametrize("family", [f for f in GATED_FAMILIES if f != "llama"])
def test_other_families_keep_what_is_predicted(family: str) -> None:
    predicted = activation_bytes(ModelShape.from_config(config(family)), BASE)
    predicted += BASE.tokens * VOCAB * 4
    assert predicted == pytest.approx(kept_by_autograd(config(family), BASE), rel=0.01)


def test_a_family_that_is_not_known_is_refused_with_those_that_are() -> None:
    with pytest.raises(UsageError, match=r"'mamba' is not known.*llama"):
        ModelShape.from_config(config("mamba"))


@pytest.mark.parametrize("value", [None, 0, -1, "64", True, 1.5])
def test_a_config_without_a_usable_size_is_refused(value: object) -> None:
    with pytest.raises(UsageError, match="hidden_size"):
        ModelShape.from_config(config(hidden_size=value))


def test_an_unknown_target_module_is_refused() -> None:
    with pytest.raises(UsageError, match="'wqkv' is not in this model"):
        predict(LLAMA_7B, TrainingShape(1, 8, 4, ("wqkv",)), cuda_host())


def test_seven_billion_in_four_bits_trains_in_eight_gigabytes() -> None:
    training = TrainingShape(1, 1024, 16, weights=Weights.NF4, checkpointing=True, autocast=True)
    assert predict(LLAMA_7B, training, cuda_host()).total < 8e9
    assert predict(LLAMA_7B, replace(training, weights=Weights.BF16), cuda_host()).total > 8e9


def test_four_bits_with_their_scales_are_a_little_more_than_half_a_byte() -> None:
    linear = weight_bytes(LLAMA_7B, Weights.NF4) - 2 * LLAMA_7B.other_parameters
    assert linear / LLAMA_7B.linear_parameters == pytest.approx(0.5159, abs=1e-4)
    halves = weight_bytes(LLAMA_7B, Weights.INT8) - 2 * LLAMA_7B.other_parameters
    assert 1.0 < halves / LLAMA_7B.linear_parameters < 1.01


def test_a_peak_is_the_larger_of_its_two_phases_and_of_loading() -> None:
    model = ModelShape.from_config(config())
    found = predict(model, BASE, DeviceOverhead(1000, 0.0, 0, load_copy=True, quantises=False))
    assert found.live == found.weights + found.trained + found.activations + max(
        found.loss, found.backward
    )
    assert found.training == found.live + 1000
    stored = predict(model, BASE, DeviceOverhead(1000, 0.0, 0, True, False), stored_bytes=10 * GIB)
    assert stored.total == 1000 + stored.weights + 10 * GIB


def test_only_learnt_tokens_pay_for_logits() -> None:
    model = ModelShape.from_config(config())
    quarter = loss_bytes(model, replace(BASE, trained_share=0.25))
    assert quarter * 4 == loss_bytes(model, BASE)


def test_an_eight_bit_optimiser_keeps_two_bytes_a_value() -> None:
    model, host = ModelShape.from_config(config()), cuda_host()
    full = predict(model, BASE, host).trained
    small = predict(model, replace(BASE, optimizer=Optimizer.ADAMW_8BIT), host).trained
    assert full - small == 6 * model.adapter_parameters(4, ("all-linear",))


trainings = st.builds(
    TrainingShape,
    micro_batch=st.integers(1, 64),
    seq_len=st.integers(8, 4096),
    rank=st.integers(1, 256),
    weights=st.sampled_from(Weights),
    checkpointing=st.booleans(),
    attention=st.sampled_from(Attention),
    padded=st.booleans(),
)


@settings(max_examples=100, deadline=None)
@given(trainings)
def test_more_of_anything_never_takes_less(training: TrainingShape) -> None:
    host = cuda_host()
    least = predict(LLAMA_7B, training, host).total
    for change in ("micro_batch", "seq_len", "rank"):
        more = replace(training, **{change: getattr(training, change) + 1})
        assert predict(LLAMA_7B, more, host).total > least
    if not training.checkpointing:
        kept = activation_bytes(LLAMA_7B, replace(training, checkpointing=True))
        assert kept < activation_bytes(LLAMA_7B, training)
        assert layer_bytes(LLAMA_7B, training) > 0
        assert backward_bytes(LLAMA_7B, training) > 0


WISH = TrainingShape(16, 1024, 16, weights=Weights.NF4, autocast=True)
budgets = st.integers(4 * GIB, 200 * GIB)


@settings(max_examples=100, deadline=None)
@given(budgets)
def test_a_plan_fits_its_budget_and_keeps_the_batch(budget: int) -> None:
    try:
        found = plan(LLAMA_7B, WISH, budget, cuda_host())
    except DoesNotFit:
        least = replace(WISH, micro_batch=1, checkpointing=True)
        assert predict(LLAMA_7B, least, cuda_host()).total > budget
        return
    assert found.predicted.total <= budget
    assert found.batch == 16 <= accumulation(found) * found.training.micro_batch
    assert (found.training.rank, found.training.seq_len) == (16, 1024)


def accumulation(found: MemoryPlan) -> int:
    """Micro-batches per optimiser step."""
    return -(-found.batch // found.training.micro_batch)


def test_more_memory_never_gives_a_slower_plan() -> None:
    def cost(found: MemoryPlan) -> tuple[bool, int]:
        return found.training.checkpointing, accumulation(found)

    plans = [plan(LLAMA_7B, WISH, size * GIB, cuda_host()) for size in (6, 8, 12, 24, 80, 200)]
    costs = [cost(found) for found in plans]
    assert costs == sorted(costs, reverse=True)
    assert costs[0][0]
    assert costs[-1] == (False, 1)


def test_a_refusal_says_what_is_missing_and_each_remedy_it_names_does_fit() -> None:
    wish = replace(WISH, weights=Weights.BF16)
    with pytest.raises(DoesNotFit) as refused:
        plan(LLAMA_7B, wish, 8 * GIB, cuda_host())
    assert refused.value.exit_code == 7
    assert "8.0 GiB are free" in str(refused.value)
    assert "a 4-bit base" in str(refused.value)
    assert plan(LLAMA_7B, WISH, 8 * GIB, cuda_host()).predicted.total <= 8 * GIB


def test_a_processor_is_not_told_to_use_four_bits() -> None:
    wish = replace(WISH, weights=Weights.FP32, autocast=False)
    with pytest.raises(DoesNotFit) as refused:
        plan(LLAMA_7B, wish, 20 * GIB, cpu_host(400 << 20))
    assert "4-bit" not in str(refused.value)
    assert "16-bit" in str(refused.value)


def test_a_model_that_is_far_too_large_is_not_given_false_hope() -> None:
    with pytest.raises(DoesNotFit, match="choose a smaller model"):
        plan(LLAMA_7B, WISH, 1 * GIB, cuda_host())


def test_rows_are_cut_in_halves_down_to_what_still_teaches() -> None:
    assert shorter(1024) == [512, 256, 128]
    assert shorter(300) == [150]
    assert shorter(128) == []
