"""Every family and every kind of tokenizer that is converted computes what it computed before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nomoat.aggregation.errors import UsageError
from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.lora.export.llama_cpp.layout import TensorLayout
from nomoat.lora.export.order import ExportTarget, Order
from nomoat.lora.export.self_check import Comparison
from nomoat.lora.export.targets import export

pytest.importorskip("gguf")
EXACT = 2e-4  # largest |Δ log p| in float32, over the whole vocabulary
THROUGH_A_TABLE = 5e-3  # llama.cpp has GELU in 16 bits

WINDOWED: dict[str, Any] = {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 12}
FAMILIES: list[Any] = [
    pytest.param("Llama", "gpt-2", {"tie_word_embeddings": True}, id="llama, tied"),
    pytest.param("Llama", "llama-3", {"rope_parameters": "llama3"}, id="llama 3.1 rotary"),
    pytest.param("Llama", "smollm", {"attention_bias": True, "mlp_bias": True}, id="llama, biases"),
    pytest.param("Mistral", "sentencepiece", {"head_dim": 32}, id="mistral, wide heads"),
    pytest.param("Qwen2", "qwen-2", {}, id="qwen 2"),
    pytest.param("Qwen3", "qwen-2", {"head_dim": 32}, id="qwen 3"),
    pytest.param("Gemma", "sentencepiece", {"head_dim": 32}, id="gemma"),
    pytest.param("Gemma2", "sentencepiece", WINDOWED, id="gemma 2"),
    pytest.param("Gemma3", "sentencepiece", WINDOWED | {"num_hidden_layers": 6}, id="gemma 3"),
]


@pytest.mark.parametrize(("family", "kind", "changes"), FAMILIES)
def test_base_and_adapter_in_llama_cpp_compute_what_peft_computes(
    family: str,
    kind: str,
    changes: dict[str, Any],
    folder_of: Callable[..., Path],
    trained: Callable[..., Adapter],
    order: Callable[..., Order],
) -> None:
    pytest.importorskip("xllamacpp")
    from tests.lora.export.conftest import LLAMA3_ROPE

    if "rope_parameters" in changes:
        changes = {"rope_parameters": LLAMA3_ROPE}
    base = folder_of(family, kind, **changes)
    wanted = order(ExportTarget.GGUF, base, trained(base, rslora=True), quant="f32")
    done = export(wanted)
    assert done.checked.startswith("tokens equal")
    model, adapter = (wanted.out / name for name in ("base-f32.gguf", f"{wanted.name}.lora.gguf"))
    measured = Comparison(wanted)
    with_adapter, without = measured.llama(model, (adapter,)), measured.llama(model, ())
    assert with_adapter.largest < (THROUGH_A_TABLE if "Gemma" in family else EXACT)
    assert with_adapter.kl < 2e-6
    assert without.largest > 100 * EXACT  # the reference is with the adapter: the check can fail
    assert without.kl > 1e-3


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"query_pre_attn_scalar": 64}, "query_pre_attn_scalar"),
        ({"layer_types": ["full_attention"] * 2}, "layer_types"),
        ({"attn_logit_softcapping": None}, "attn_logit_softcapping"),
    ],
)
def test_attention_that_llama_cpp_would_compute_otherwise_is_refused(
    changes: dict[str, Any], name: str
) -> None:
    usual = {
        "architectures": ["Gemma2ForCausalLM"],
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "hidden_size": 64,
        "attn_logit_softcapping": 50.0,
    }
    TensorLayout.of(usual | WINDOWED)
    with pytest.raises(UsageError, match=f"unusual {name}"):
        TensorLayout.of(usual | WINDOWED | changes)
