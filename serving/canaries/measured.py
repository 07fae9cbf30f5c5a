"""Measuring canaries: losses of planted phrases, and of others like them, in a worker process."""

from __future__ import annotations

from collections.abc import Sequence

from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.lora.canaries.exposure import Exposure, exposure
from nomoat.lora.canaries.phrases import Canary, rows_to_measure
from nomoat.lora.workers.jobs import RowLossesJob
from nomoat.lora.workers.pool import Pool

BASE, ADAPTER = "base", "adapter"


def exposures(
    canaries: Sequence[Canary], adapter: Adapter, pool: Pool, references: int
) -> dict[str, dict[str, Exposure]]:
    """Tag → exposure under the "base" alone and under the "adapter".

    pool: a worker that has the base. references: how many other phrases each is compared with.
    """
    found: dict[str, dict[str, Exposure]] = {}
    for canary in canaries:
        rows, of = rows_to_measure(canary, references), found.setdefault(canary.tag, {})
        for name, vector in ((BASE, None), (ADAPTER, adapter.vector)):
            read = pool.submit(RowLossesJob(rows, adapter.spec, vector)).result()
            loss, *others = (row.loss for row in read)
            of[name] = exposure(loss, others)
    return found
