"""The longest row that a model reads, from its configuration and its table of positions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from nomoat.aggregation.errors import UsageError

# As the families name it; the first that is a positive number counts.
KEYS: Final = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "max_sequence_length",
    "max_seq_length",
    "context_length",
    "n_ctx",
)
PARTS: Final = (
    "text_config",
    "llm_config",
    "language_config",
    "decoder",
)  # of models that see, too


def context_length(config: Mapping[str, Any]) -> int | None:
    """Return how many tokens of a row the model reads; None where its configuration says nothing.

    config: the dict of config.json, or of transformers' configuration, which has defaults as well.
    """
    for part in PARTS:
        inner = config.get(part)
        if isinstance(inner, Mapping) and (found := context_length(inner)) is not None:
            return found
    for key in KEYS:
        value = config.get(key)
        if type(value) is int and value > 0:
            return value
    return None


def context_of(model: Any) -> int | None:
    """Return how many tokens of a row `model` reads: what it says, or its table if that is less."""
    found = [context_length(model.config.to_dict()), *_tables(model)]
    return min((length for length in found if length is not None), default=None)


def check_length(context: int | None, seq_len: int) -> None:
    """Raise UsageError if rows of `seq_len` tokens are longer than what the model reads."""
    if context is not None and seq_len > context:
        raise UsageError(f"the model reads {context} tokens; --seq-len {context}")


def _tables(model: Any) -> Iterator[int]:
    """Rows that text can use of each learnt table of positions beside the table of tokens.

    Some begin with rows that no position has: OPT's `offset`, RoBERTa's `padding_idx`.
    """
    from torch import nn

    tokens = model.get_input_embeddings()
    for parent in model.modules():
        children = dict(parent.named_children())
        if not any(child is tokens for child in children.values()):
            continue
        for name, table in children.items():
            if isinstance(table, nn.Embedding) and (name == "wpe" or "position" in name):
                unused = 0 if table.padding_idx is None else table.padding_idx + 1
                yield table.num_embeddings - max(unused, int(getattr(table, "offset", 0)))
