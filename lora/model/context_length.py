"""How many tokens a model reads at most, from its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nomoat.lora.model.files import config

NAMES = (
    "max_position_embeddings",
    "n_positions",
    "n_ctx",
    "max_seq_len",
    "max_sequence_length",
    "context_length",
)
INNER = ("text_config", "language_config", "llm_config")


def context_length(folder: Path) -> int | None:
    """The model's context in tokens; None if its configuration names none (ALiBi, recurrence)."""
    return of_config(config(folder))


def of_config(found: Mapping[str, Any]) -> int | None:
    """The same of a configuration that was read."""
    for name in NAMES:
        value = found.get(name)
        if isinstance(value, int) and value > 0:
            return value
    inner = (found[name] for name in INNER if isinstance(found.get(name), Mapping))
    return next((length for part in inner if (length := of_config(part)) is not None), None)
