"""The GPU memory of work that no planner has seen: a base, and one row through it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from nomoat.aggregation.errors import BadData, UsageError
from nomoat.lora.memory.prediction import (
    CONTEXT_BYTES,
    TrainingShape,
    Weights,
    cuda_host,
    predict,
)
from nomoat.lora.model.files import config
from nomoat.lora.model.shape import ModelShape

ROW_TOKENS: Final = 2048  # of the longest prompt that a worker reads
RANK: Final = 64


def holding_bytes(folder: str, bits: int | None) -> int | None:
    """Return the bytes of a GPU that a worker takes to hold the base and read or examine a row.

    None for a family of models whose need is not known before it is loaded.
    """
    weights = {4: Weights.NF4, 8: Weights.INT8}.get(bits or 16, Weights.BF16)
    one = TrainingShape(1, ROW_TOKENS, RANK, weights=weights, checkpointing=True, autocast=True)
    try:
        shape = ModelShape.from_config(config(Path(folder)))
    except (UsageError, BadData):
        return None
    return predict(shape, one, cuda_host()).total + CONTEXT_BYTES
