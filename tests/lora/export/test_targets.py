"""Every export computes what was measured, or leaves nothing behind."""

from __future__ import annotations

import json
import math
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nomoat.aggregation.errors import BadData, NomoatError, UsageError
from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.lora.export import mlx_folder, reference
from nomoat.lora.export.llama_cpp.layout import TensorLayout
from nomoat.lora.export.model_card import CardFacts
from nomoat.lora.export.order import ExportTarget, Order
from nomoat.lora.export.self_check import Comparison
from nomoat.lora.export.targets import export, ollama_name

Made = Callable[..., Path]
Ordered = Callable[..., Order]


@pytest.fixture(scope="module")
def base(folder_of: Made, chatml: str) -> Path:
    """A Llama with a chat template."""
    return folder_of("Llama", "gpt-2", chatml, tie_word_embeddings=True)


@pytest.fixture(scope="module")
def adapter(base: Path, trained: Callable[..., Adapter]) -> Adapter:
    """One that changes its answers."""
    return trained(base)


@contextmanager
def disk_of(most: int) -> Iterator[None]:
    """No file may grow beyond `most` bytes, as on a disk that is almost full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("target", [ExportTarget.PEFT, ExportTarget.VLLM, ExportTarget.HUB])
def test_a_peft_folder_gives_the_logits_that_were_measured(
    target: ExportTarget, base: Path, adapter: Adapter, order: Ordered
) -> None:
    wanted = order(target, base, adapter)
    done = export(wanted)
    assert {"adapter_config.json", "adapter_model.safetensors", "README.md"} <= {
        path.name for path in done.files
    }
    measured = Comparison(wanted)
    assert measured.peft(wanted.out).largest < 1e-5
    plain = reference.next_logprobs(measured.base, None, measured.prompts)
    assert reference.compare(measured.expected, plain).largest > 0.1  # it is not the base


@pytest.mark.parametrize("stored", ["float32", "bfloat16"])
def test_a_merged_model_answers_as_base_and_adapter_do(
    stored: str, folder_of: Made, trained: Callable[..., Adapter], order: Ordered
) -> None:
    import torch

    base = folder_of("Qwen2", "qwen-2", stored=getattr(torch, stored), shard="100KB")
    wanted = order(ExportTarget.MERGED, base, trained(base))
    done = export(wanted)
    found = Comparison(wanted).merged(wanted.out)
    assert found.kl < (1e-9 if stored == "float32" else 1e-2)
    names = {path.name for path in done.files}
    assert "model.safetensors.index.json" in names  # what was in pieces stays in pieces
    assert len([name for name in names if name.endswith(".safetensors")]) > 1


def test_mlx_gets_the_same_product_in_its_own_layout(
    base: Path, trained: Callable[..., Adapter], order: Ordered
) -> None:
    from safetensors.numpy import load_file

    adapter = trained(base, rslora=True)
    wanted = order(ExportTarget.MLX, base, adapter)
    export(wanted)
    arrays = load_file(wanted.out / "adapters.safetensors")
    config = json.loads((wanted.out / "adapter_config.json").read_text())["lora_parameters"]
    layer, a, b = next(adapter.factors())
    name = layer.name.removeprefix("base_model.model.")
    product = config["scale"] * arrays[f"{name}.lora_a"] @ arrays[f"{name}.lora_b"]
    np.testing.assert_allclose(product.T, adapter.spec.alpha / math.sqrt(4) * (b @ a), atol=1e-6)


@pytest.mark.parametrize("target", [ExportTarget.PHONE, ExportTarget.OLLAMA])
def test_one_file_holds_everything_a_phone_needs(
    target: ExportTarget, base: Path, adapter: Adapter, order: Ordered
) -> None:
    gguf = pytest.importorskip("gguf")
    wanted = order(target, base, adapter, quant="q8_0")
    done = export(wanted)
    (file,) = (path for path in done.files if path.suffix == ".gguf")
    fields = gguf.GGUFReader(file).fields
    assert "<|im_start|>assistant" in fields["tokenizer.chat_template"].contents()
    assert fields["nomoat.base_hash"].contents() == bytes(32).hex()
    if target is ExportTarget.OLLAMA:
        text = (wanted.out / "Modelfile").read_text()
        assert f"FROM ./{file.name}" in text
        assert 'PARAMETER stop "<|im_end|>"' in text
        assert "@" not in done.then


def test_what_llama_cpp_would_compute_otherwise_is_not_left_behind(
    base: Path, adapter: Adapter, order: Ordered, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("xllamacpp")
    monkeypatch.setattr(
        TensorLayout, "arrange", lambda self, name, values: values
    )  # rows left as is
    wanted = order(ExportTarget.GGUF, base, adapter, quant="f32")
    with pytest.raises(NomoatError, match="does not compute what was measured"):
        export(wanted)
    assert not list(wanted.out.parent.iterdir())


@pytest.mark.parametrize("target", list(ExportTarget))
def test_a_full_disk_leaves_nothing_half_written(
    target: ExportTarget, base: Path, adapter: Adapter, order: Ordered
) -> None:
    wanted = order(target, base, adapter)
    with disk_of(20_000), pytest.raises(NomoatError) as refused:
        export(wanted)
    assert "cannot write" in str(refused.value)
    assert not list(wanted.out.parent.iterdir())


@pytest.mark.parametrize(
    "target", [ExportTarget.MERGED, ExportTarget.GGUF, ExportTarget.PEFT, ExportTarget.PHONE]
)
def test_an_adapter_of_another_base_is_refused(
    target: ExportTarget,
    base: Path,
    folder_of: Made,
    trained: Callable[..., Adapter],
    order: Ordered,
) -> None:
    other = trained(folder_of("Qwen3", "qwen-2", head_dim=32))
    wanted = order(target, base, other)
    with pytest.raises(BadData, match="another model"):
        export(wanted)
    assert not list(wanted.out.parent.iterdir())


def test_what_is_there_already_is_never_replaced(
    base: Path, adapter: Adapter, order: Ordered
) -> None:
    wanted = order(ExportTarget.PEFT, base, adapter)
    wanted.out.mkdir()
    with pytest.raises(UsageError, match="exists already"):
        export(wanted)


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"base_id": ""}, "--base-id"), ({"license": ""}, "--license")],
)
def test_the_hub_gets_no_card_that_it_would_refuse(
    changes: dict[str, str], said: str, base: Path, adapter: Adapter, order: Ordered
) -> None:
    wanted = order(ExportTarget.HUB, base, adapter)
    with pytest.raises(UsageError, match=said):
        export(replace(wanted, facts=replace(wanted.facts, **changes)))
    assert not list(wanted.out.parent.iterdir())


@pytest.mark.parametrize(
    ("target", "quant"),
    [(ExportTarget.PEFT, "f16"), (ExportTarget.PHONE, "q5_k_m"), (ExportTarget.MLX, "q4_0")],
)
def test_a_quantisation_that_is_unknown_or_has_no_place_is_refused(
    target: ExportTarget, quant: str, base: Path, adapter: Adapter, order: Ordered
) -> None:
    with pytest.raises(UsageError, match="--quant"):
        export(order(target, base, adapter, quant=quant))


def test_other_architectures_are_named_with_upstreams_scripts() -> None:
    with pytest.raises(UsageError, match=r"FalconForCausalLM.*convert_hf_to_gguf\.py"):
        TensorLayout.of({"architectures": ["FalconForCausalLM"]})
    with pytest.raises(UsageError, match="longrope"):
        TensorLayout.of(
            {"architectures": ["LlamaForCausalLM"], "rope_scaling": {"type": "longrope"}}
        )


def test_mlx_fills_lower_ranks_with_zeros(tmp_path: Path) -> None:
    from nomoat.lora.export.factors import Factor

    rng = np.random.default_rng(3)

    def drawn(*shape: int) -> Any:
        return rng.standard_normal(shape).astype(np.float32)

    factors = (
        Factor("model.layers.0.self_attn.q_proj", drawn(2, 6), drawn(5, 2)),
        Factor("model.layers.0.mlp.up_proj", drawn(4, 6), drawn(7, 4)),
    )
    mlx_folder.write_mlx(factors, 1, tmp_path)
    assert mlx_folder.largest_error(factors, tmp_path) < 1e-6
    with pytest.raises(UsageError, match="lm_head"):
        mlx_folder.write_mlx((Factor("lm_head", drawn(2, 6), drawn(5, 2)),), 1, tmp_path)


def test_ollama_takes_the_names_it_is_given() -> None:
    assert ollama_name("Readers' Club-community@12") == "readers-club-community-12"
    assert CardFacts("x", "", "").base_id == ""
