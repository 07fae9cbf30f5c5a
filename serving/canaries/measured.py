"""Measuring canaries: losses of planted phrases, and of others like them, in a worker process."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.aggregation.protocol.messages import TrainSettings
from nomoat.lora.data.conversations import Conversation
from nomoat.lora.data.normal_form import write_jsonl
from nomoat.lora.training.evaluate import MeasuredLoss
from nomoat.lora.workers.jobs import EvaluateJob
from nomoat.lora.workers.pool import Pool
from nomoat.serving.canaries.exposure import Exposure, exposure
from nomoat.serving.canaries.planted import Canary, others

SEQ_LEN = 256
BASE, ADAPTER = "base", "adapter"


def exposures(
    canaries: Sequence[Canary], adapter: Adapter, pool: Pool, references: int
) -> dict[str, dict[str, Exposure]]:
    """Tag → exposure under the "base" alone and under the "adapter".

    pool: a worker that has the base. references: how many other phrases each is compared with.
    """
    found: dict[str, dict[str, Exposure]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for canary in canaries:
            rows = [canary.row(), *others(canary, references)]
            found[canary.tag] = {
                BASE: _exposure(pool, Path(scratch), rows, adapter, bare=True),
                ADAPTER: _exposure(pool, Path(scratch), rows, adapter),
            }
    return found


def _exposure(
    pool: Pool,
    scratch: Path,
    rows: Sequence[Conversation],
    adapter: Adapter,
    *,
    bare: bool = False,
) -> Exposure:
    """Measure every row by itself. bare: with the base alone."""
    settings = TrainSettings(seq_len=SEQ_LEN)
    asked: list[Future[MeasuredLoss]] = []
    for number, row in enumerate(rows):
        shard = scratch / f"{number}.jsonl"
        write_jsonl([row], shard)
        vector = None if bare else adapter.vector
        asked.append(pool.submit(EvaluateJob(shard, adapter.spec, vector, settings)))
    loss, *of_others = (future.result().loss for future in asked)
    return exposure(loss, of_others)
