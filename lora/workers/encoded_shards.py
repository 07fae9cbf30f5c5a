"""The rows of shards as token ids: encoded once while they are in use and their files unchanged."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

from nomoat.lora.data.encoding import Encoded, Encoder
from nomoat.lora.data.reading import read
from nomoat.lora.data.row_counts import RowUse
from nomoat.lora.model.context import check_length

CACHED_TOKENS = 20_000_000  # 5 bytes each


class EncodedShards:
    """Examples of the shards that were asked for lately. context: the most a row may have."""

    def __init__(self, tokenizer: Any, context: int | None) -> None:
        self._tokenizer, self._context = tokenizer, context
        self._kept: OrderedDict[tuple[Any, ...], tuple[Encoded, RowUse]] = OrderedDict()

    def encoded(self, shard: Path, seq_len: int) -> tuple[Encoded, RowUse]:
        """Return the shard's examples, and what became of its rows.

        UsageError if the model does not read `seq_len` tokens.
        """
        found = shard.stat() if shard.exists() else None
        key = (shard, seq_len, found and (found.st_size, found.st_mtime_ns))
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        check_length(self._context, seq_len)
        rows = read(shard).conversations
        made = Encoder.of(self._tokenizer, seq_len).encode_all(rows)
        self._kept[key] = made, RowUse(len(rows), seq_len, made.truncated, made.dropped)
        self._forget()
        return self._kept[key]

    def _forget(self) -> None:
        """Drop the shards used longest ago until the rest is small enough, or one."""
        sizes = {
            key: sum(len(example.input_ids) for example in made.examples)
            for key, (made, _) in self._kept.items()
        }
        total = sum(sizes.values())
        while total > CACHED_TOKENS and len(self._kept) > 1:
            oldest, _ = self._kept.popitem(last=False)
            total -= sizes[oldest]
