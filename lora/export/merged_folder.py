"""A model folder with an adapter merged into its weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nomoat.lora.export.factors import Factor
from nomoat.lora.export.weights import BaseWeights
from nomoat.lora.model.files import TOKENIZER_FILES, checked
from nomoat.storage.tensor_file import TensorFile, to_bfloat16

BESIDE = ("config.json", "generation_config.json", *TOKENIZER_FILES)
INDEX = "*.safetensors.index.json"


def write_merged(base: Path, factors: Sequence[Factor], folder: Path) -> None:
    """Write base and adapter as one model into `folder`, which exists and is empty.

    Summed in float32, stored as the base is stored. BadData if the adapter is not the base's.
    """
    weights = BaseWeights.open(checked(base), factors)
    for file in weights.files:
        _write_file(weights, file, folder / file.path.name)
    for name in BESIDE:
        if (base / name).is_file():
            shutil.copyfile(base / name, folder / name)
    for path in base.glob(INDEX):
        shutil.copyfile(path, folder / path.name)


def _write_file(weights: BaseWeights, file: TensorFile, path: Path) -> None:
    """Copy a file tensor by tensor; only what an adapter touches is computed."""
    header: dict[str, Any] = {"__metadata__": file.metadata or {"format": "pt"}}
    start = 0
    for name in file.names():
        first, last = file.header[name]["data_offsets"]
        header[name] = file.header[name] | {"data_offsets": [start, start + last - first]}
        start += last - first
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for name in file.names():
            out.write(_bytes(weights, file, name))


def _bytes(weights: BaseWeights, file: TensorFile, name: str) -> bytes:
    if name not in weights.deltas:
        return file.raw(name)
    values, kind = weights.read(name), file.dtype(name)
    if kind == "BF16":
        return to_bfloat16(values).astype("<u2").tobytes()
    return np.ascontiguousarray(values, "<f4" if kind == "F32" else "<f2").tobytes()
