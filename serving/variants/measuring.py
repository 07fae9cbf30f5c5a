"""Losses of several adapters on the same held-out rows, in worker processes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from nomoat.aggregation.errors import BadData
from nomoat.aggregation.protocol.adapter import Adapter, AdapterSpec
from nomoat.aggregation.protocol.messages import TrainSettings
from nomoat.lora.data.conversations import Conversation, by_field
from nomoat.lora.data.normal_form import write_jsonl
from nomoat.lora.data.reading import read
from nomoat.lora.workers.jobs import EvaluateJob, SampleJob
from nomoat.lora.workers.pool import Pool

BASE = "base"


@dataclass(frozen=True, slots=True)
class GroupLosses:
    """The losses on some of the rows; none if no token of them can be measured."""

    rows: int
    losses: dict[str, float]


@dataclass(frozen=True)
class HeldOutRows:
    """Rows to measure on, and a worker that has the base model."""

    pool: Pool
    shard: Path
    rows: tuple[Conversation, ...]
    seq_len: int

    def losses(self, adapters: Mapping[str, Adapter]) -> dict[str, float]:
        """Mean nats per trained token, of the base and of each adapter."""
        settings = TrainSettings(seq_len=self.seq_len)
        first = next(iter(adapters.values()))
        asked = {BASE: self.pool.submit(EvaluateJob(self.shard, first.spec, None, settings))}
        for name, adapter in adapters.items():
            job = EvaluateJob(self.shard, adapter.spec, adapter.vector, settings)
            asked[name] = self.pool.submit(job)
        return {name: future.result().loss for name, future in asked.items()}

    def losses_by(self, field: str, adapters: Mapping[str, Adapter]) -> dict[str, GroupLosses]:
        """The losses on the rows of each value of a field; BadData if no row has it."""
        found = {}
        for number, (value, rows) in enumerate(by_field(self.rows, field).items()):
            shard = self.shard.with_name(f"{number}.jsonl")
            write_jsonl(rows, shard)
            try:
                losses = replace(self, shard=shard).losses(adapters)
            except BadData:  # all of them are too long, or hold nothing to learn
                losses = {}
            found[value] = GroupLosses(len(rows), losses)
        return found

    def answers(
        self, adapters: Mapping[str, Adapter], most: int, tokens: int
    ) -> list[dict[str, str]]:
        """The first questions of the rows, answered by the base and by each adapter, greedily."""
        prompts = self._questions(most)
        if not prompts:
            return []
        first = next(iter(adapters.values()))
        asked = {BASE: self._sample(prompts, first.spec, None, tokens)}
        for name, adapter in adapters.items():
            asked[name] = self._sample(prompts, adapter.spec, adapter, tokens)
        return [
            {"question": prompt} | {name: texts[k] for name, texts in asked.items()}
            for k, prompt in enumerate(prompts)
        ]

    def _sample(
        self, prompts: tuple[str, ...], spec: AdapterSpec, adapter: Adapter | None, tokens: int
    ) -> tuple[str, ...]:
        vector = None if adapter is None else adapter.vector
        return self.pool.submit(SampleJob(prompts, spec, vector, tokens)).result()

    def _questions(self, most: int) -> tuple[str, ...]:
        asked = (next((t.text for t in row.turns if t.role == "user"), "") for row in self.rows)
        return tuple(dict.fromkeys(filter(None, asked)))[:most]


@contextmanager
def held_out(file: Path, base: Path, seq_len: int) -> Iterator[HeldOutRows]:
    """Rows of a data file, and a worker for the base, while the block runs.

    BadData if no row of the file can be used.
    """
    rows = read(file).conversations
    if not rows:
        raise BadData(f"{file}: no row in it can be used")
    with tempfile.TemporaryDirectory() as scratch, Pool(str(base), 1) as pool:
        shard = Path(scratch) / "rows.jsonl"
        write_jsonl(rows, shard)
        yield HeldOutRows(pool, shard, rows, seq_len)
