"""Every family and every kind of tokenizer that is converted computes what it computed before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.lora.export.order import ExportTarget, Order
from nomoat.lora.export.self_check import Comparison
from nomoat.lora.export.targets import export

pytest.importorskip("gguf")
EXACT = 2e-4  # largest |Δ log p| in float32, over the whole vocabulary

FAMILIES: list[Any] = [
    pytest.param("Llama", "gpt-2", {"tie_word_embeddings": True}, id="llama, tied"),
    pytest.param("Llama", "llama-3", {"rope_parameters": "llama3"}, id="llama 3.1 rotary"),
    pytest.param("Llama", "smollm", {"attention_bias": True, "mlp_bias": True}, id="llama, biases"),
    pytest.param("Mistral", "sentencepiece", {"head_dim": 32}, id="mistral, wide heads"),
    pytest.param("Qwen2", "qwen-2", {}, id="qwen 2"),
    pytest.param("Qwen3", "qwen-2", {"head_dim": 32}, id="qwen 3"),
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
    assert with_adapter.largest < EXACT
    assert without.largest > 100 * EXACT  # the reference is with the adapter: the check can fail
