"""Models of random weights, made where they are used, and rows for them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nomoat.lora.data.encoding import Example

SIZES: dict[str, dict[str, int]] = {
    "tiny": {"d": 64, "f": 176, "layers": 2, "heads": 4, "kv": 2, "vocab": 512},
    "10M": {"d": 256, "f": 688, "layers": 8, "heads": 8, "kv": 4, "vocab": 8_000},
    "100M": {"d": 768, "f": 2048, "layers": 12, "heads": 12, "kv": 4, "vocab": 32_000},
    "1B": {"d": 2048, "f": 5632, "layers": 22, "heads": 32, "kv": 4, "vocab": 32_000},
    "7B": {"d": 4096, "f": 11008, "layers": 32, "heads": 32, "kv": 32, "vocab": 32_000},
}
# bf16 products of dense matrices, TFLOP/s, from the makers' data sheets
PEAKS = {
    "H100 PCIe": 756.0, "H100": 989.4, "H200": 989.4, "GH200": 989.4, "B200": 2250.0,
    "A100": 312.0, "L40S": 362.0, "L4": 121.0, "A10": 125.0, "4090": 165.2, "3090": 71.0,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class StepShape:
    """Rows of a step, and tokens of each."""

    rows: int
    tokens: int


def config_of(size: str) -> dict[str, Any]:
    """Return a transformers Llama config of that size."""
    found = SIZES[size]
    return {
        "model_type": "llama",
        "hidden_size": found["d"],
        "intermediate_size": found["f"],
        "num_hidden_layers": found["layers"],
        "num_attention_heads": found["heads"],
        "num_key_value_heads": found["kv"],
        "vocab_size": found["vocab"],
        "max_position_embeddings": 4096,
        "tie_word_embeddings": size != "7B",
        "use_cache": False,
    }


def random_base(size: str, device: str, bits: int = 16) -> Any:
    """Make a frozen base of random weights on `device`, in its own type, as a BaseModel.

    bits: 4 packs the layers' linear maps as `load(bits=4)` does, one after the other.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from nomoat.lora.device import backends
    from nomoat.lora.model.base_model import BaseModel

    found = backends.pick(device)
    found.start()
    torch.manual_seed(0)
    config = AutoConfig.for_model(**config_of(size))
    with torch.device(found.place):
        model: Any = AutoModelForCausalLM.from_config(config, dtype=found.dtype())
    if bits == 4:
        _pack(model, found)
    model.requires_grad_(False)
    model.eval()
    model.config.use_cache = False
    found.give_back()
    return BaseModel(size, Path(size), model, None, found.place)  # type: ignore[arg-type]


def _pack(model: Any, device: Any) -> None:
    """Put NF4 in the place of every linear map but the head."""
    import bitsandbytes as bnb
    from torch import nn

    for layer in model.model.layers:
        for part in (layer.self_attn, layer.mlp):
            for name, linear in list(part.named_children()):
                if not isinstance(linear, nn.Linear):
                    continue
                packed = bnb.nn.Linear4bit(
                    linear.in_features,
                    linear.out_features,
                    bias=False,
                    compute_dtype=device.dtype(),
                    compress_statistics=True,
                    quant_type="nf4",
                    device="meta",
                )
                packed.weight = bnb.nn.Params4bit(
                    linear.weight.data.cpu(),
                    requires_grad=False,
                    compress_statistics=True,
                    quant_type="nf4",
                    module=packed,
                ).to(device.place)
                setattr(part, name, packed)
    model.is_loaded_in_4bit = model.is_quantized = True


def full_rows(count: int, tokens: int, vocabulary: int, seed: int = 0) -> tuple[Example, ...]:
    """Rows of random tokens of one length, all trained on but the first: the dearest case."""
    rng = np.random.default_rng(seed)
    trained = np.ones(tokens, bool)
    trained[0] = False
    return tuple(
        Example(rng.integers(3, vocabulary, tokens).astype(np.int32), trained) for _ in range(count)
    )


def mixed_rows(count: int, tokens: int, vocabulary: int, seed: int = 0) -> tuple[Example, ...]:
    """Rows as people have them: a quarter of the length to all of it, the second half trained."""
    rng = np.random.default_rng(seed)
    found = []
    for length in rng.integers(tokens // 4, tokens + 1, count):
        trained = np.arange(length) >= length // 2
        found.append(Example(rng.integers(3, vocabulary, length).astype(np.int32), trained))
    return tuple(found)


def peak_tflops(name: str) -> float | None:
    """Return the card's bf16 peak from its maker's sheet, None for a card not listed."""
    return next((peak for card, peak in PEAKS.items() if card in name), None)


def step_flops(size: str, shape: StepShape, rank: int) -> float:
    """Floating point operations of one LoRA step over full rows, nothing counted twice.

    Frozen maps: forward and the gradient of their input, 2·P each a token. Factors: 6·P. The head:
    4·V·d. Causal attention: 2·T·d a token and layer, forward, and twice that backward.
    """
    c = SIZES[size]
    kv = c["kv"] * (c["d"] // c["heads"])
    maps = [(c["d"], c["d"])] * 2 + [(c["d"], kv)] * 2 + [(c["d"], c["f"])] * 3
    base = c["layers"] * sum(a * b for a, b in maps)
    factors = c["layers"] * rank * sum(a + b for a, b in maps)
    attention = 3 * 2 * shape.tokens * c["d"] * c["layers"]
    a_token = 4 * base + 6 * factors + 4 * c["vocab"] * c["d"] + attention
    return float(shape.rows * shape.tokens * a_token)
