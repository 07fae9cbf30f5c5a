"""An adapter as mlx-lm reads it: factors transposed, one scale, one rank.

https://github.com/ml-explore/mlx-lm, tuner/lora.py: y = W x + scale · (x A) B.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from nomoat.aggregation.errors import UsageError
from nomoat.lora.export.factors import Factor

LAYER = r"model\.layers\.\d+\."


def write_mlx(factors: Sequence[Factor], layers: int, folder: Path) -> None:
    """Write adapters.safetensors and adapter_config.json into `folder`.

    layers: of the model. Lower ranks are filled with zeros. UsageError for an adapter of anything
    but decoder layers.
    """
    if odd := [f.module for f in factors if not re.match(LAYER, f.module)]:
        raise UsageError(f"MLX takes adapters of decoder layers only, not of {odd[0]}")
    rank = max(factor.rank for factor in factors)
    arrays: dict[str, NDArray[np.float32]] = {}
    for factor in factors:
        padding = ((0, rank - factor.rank), (0, 0))
        arrays[f"{factor.module}.lora_a"] = np.ascontiguousarray(np.pad(factor.a, padding).T)
        arrays[f"{factor.module}.lora_b"] = np.ascontiguousarray(np.pad(factor.b.T, padding))
    config = {
        "fine_tune_type": "lora",
        "num_layers": layers,
        "lora_parameters": {
            "rank": rank,
            "scale": 1.0,
            "dropout": 0.0,
            "keys": sorted({re.sub(LAYER, "", factor.module) for factor in factors}),
        },
    }
    (folder / "adapters.safetensors").write_bytes(save(arrays, {"format": "mlx"}))
    text = json.dumps(config, indent=2, sort_keys=True)
    (folder / "adapter_config.json").write_text(text + "\n", encoding="utf-8")


def largest_error(factors: Sequence[Factor], folder: Path) -> float:
    """Largest |ΔW as MLX computes it − B A| over all layers, read back from the folder."""
    from safetensors.numpy import load_file

    arrays = load_file(folder / "adapters.safetensors")
    scale = json.loads((folder / "adapter_config.json").read_text())["lora_parameters"]["scale"]
    errors = [
        np.abs(scale * (arrays[f"{f.module}.lora_a"] @ arrays[f"{f.module}.lora_b"]).T - f.delta())
        for f in factors
    ]
    return float(max(error.max(initial=0.0) for error in errors))
