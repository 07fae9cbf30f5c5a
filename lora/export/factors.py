"""Factors that an adapter adds to a model, layer by layer: ΔW = B A, every scale already in B.

PEFT has four rules for the scale (α/r, α/√r, and patterns of rank and of α per layer). Other
programs know one of them at most, so that a scale left outside B is a scale computed wrongly.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nomoat.aggregation.errors import BadData
from nomoat.aggregation.protocol.adapter import LORA_A, LORA_B, Adapter
from nomoat.lora.model.adapter_folder import CONFIG_FILE, WEIGHTS_FILE
from nomoat.storage.tensor_file import TensorFile

PREFIX = "base_model.model."  # PEFT's wrapper around the model's own names
NOT_PLAIN = ("use_dora", "modules_to_save", "lora_bias", "alora_invocation_tokens")


@dataclass(frozen=True, eq=False, slots=True)
class Factor:
    """ΔW = B A of one linear layer: a is (r, d_in), b is (d_out, r), both float32.

    module: the layer's name in the model, such as model.layers.0.self_attn.q_proj.
    """

    module: str
    a: NDArray[np.float32]
    b: NDArray[np.float32]

    @property
    def rank(self) -> int:
        """r."""
        return int(self.a.shape[0])

    def delta(self) -> NDArray[np.float32]:
        """B A, (d_out, d_in), summed in float32."""
        return self.b @ self.a


def of_adapter(adapter: Adapter) -> tuple[Factor, ...]:
    """The factors of an adapter, in the order of its layers."""
    scale = np.float32(adapter.spec.scale)
    return tuple(
        Factor(layer.name.removeprefix(PREFIX), a.copy(), b * scale)
        for layer, a, b in adapter.factors()
    )


def of_folder(folder: Path) -> tuple[Factor, ...]:
    """The factors in a PEFT folder; BadData if it holds more than plain LoRA of linear layers."""
    config = _config(folder)
    tensors = dict(TensorFile.open(folder / WEIGHTS_FILE))
    found = []
    for name in sorted(tensors):
        twin = name.removesuffix(LORA_A) + LORA_B
        if name.endswith(LORA_B) and name.removesuffix(LORA_B) + LORA_A in tensors:
            continue
        if not name.endswith(LORA_A) or twin not in tensors or tensors[name].ndim != 2:
            raise BadData(f"{folder}: {name} is not one of the two factors of a linear layer")
        a, b = tensors[name], tensors[twin]
        if b.ndim != 2 or a.shape[0] != b.shape[1]:
            raise BadData(f"{folder}: the factors {name} and {twin} do not fit together")
        module = name.removesuffix(LORA_A).removeprefix(PREFIX)
        found.append(Factor(module, a, b * np.float32(_scale(config, module, a.shape[0]))))
    if not found:
        raise BadData(f"{folder / WEIGHTS_FILE} holds no LoRA factor")
    return tuple(found)


def _config(folder: Path) -> dict[str, Any]:
    file = folder / CONFIG_FILE
    try:
        config = json.loads(file.read_bytes())
    except OSError as problem:
        raise BadData(f"{folder} is not an adapter folder: {problem.strerror}") from None
    except (ValueError, RecursionError):
        raise BadData(f"{file} is not valid JSON") from None
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise BadData(f"{file} does not describe a LoRA adapter")
    for key in NOT_PLAIN:
        if config.get(key):
            raise BadData(f"{file}: an adapter with {key} is more than a plain LoRA")
    return config


def _scale(config: dict[str, Any], module: str, rank: int) -> float:
    """s of one layer as PEFT computes it: α/r, or α/√r under rsLoRA (arXiv:2312.03732).

    rank: that of the stored factor, which is what rank_pattern has made of it.
    """
    alpha = config.get("lora_alpha")
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        if _matches(str(pattern), module):
            alpha = value
            break
    if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not math.isfinite(alpha):
        raise BadData(f"{CONFIG_FILE} has no usable lora_alpha for {module}")
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _matches(pattern: str, module: str) -> bool:
    """PEFT's rule: the pattern is the whole name, or its end after a dot."""
    try:
        return re.fullmatch(rf"(.*\.)?({pattern})", module) is not None
    except re.error:
        raise BadData(f"{CONFIG_FILE}: {pattern!r} is not a pattern of layer names") from None
