"""The community's own evaluation split, in a worker process: no torch in this one.

Adapters are measured on it; and trained on it for the size of an update alone (rounds/norms).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from nomoat.aggregation.methods.base import LocalStart
from nomoat.aggregation.protocol.adapter import Adapter, Vector
from nomoat.aggregation.protocol.messages import TrainSettings, TrainTask
from nomoat.lora.scan.plan import ScanPlan, Shifts
from nomoat.lora.workers.jobs import EvaluateJob, ScanJob, TrainJob
from nomoat.lora.workers.pool import Pool

T = TypeVar("T")


@dataclass
class EvaluationSplit:
    """Rows kept by the community (a file `formats.write_jsonl` wrote), and who measures on them."""

    rows: Path
    settings: TrainSettings
    pool: Pool

    def measure(self, adapter: Adapter) -> Future[float]:
        """The adapter's loss, mean nats per trained token; NomoatError if it cannot be measured."""
        loss: Future[float] = Future()

        job = EvaluateJob(self.rows, adapter.spec, adapter.vector, self.settings)
        self.pool.submit(job).add_done_callback(_handing_on(loss, lambda found: found.loss))
        return loss

    def scan(self, before: Adapter, after: Adapter, plan: ScanPlan) -> Future[Shifts]:
        """Try texts in these rows' questions; NomoatError if it cannot be done."""
        tried: Future[Shifts] = Future()
        length = self.settings.seq_len
        job = ScanJob(self.rows, after.spec, before.vector, after.vector, length, plan)
        self.pool.submit(job).add_done_callback(_handing_on(tried, lambda found: found))
        return tried

    def train(self, task: TrainTask, local: LocalStart) -> Future[Vector]:
        """Train local.adapter on these rows, float32 (d,); NomoatError if it cannot be done."""
        trained: Future[Vector] = Future()
        spec, start = local.adapter.spec, local.adapter.vector
        job = TrainJob(self.rows, spec, start, task.settings, task.seed, local.frozen)
        self.pool.submit(job).add_done_callback(_handing_on(trained, lambda found: found.vector))
        return trained


def _handing_on(to: Future[T], part: Callable[[Any], T]) -> Callable[[Future[Any]], None]:
    def done(found: Future[Any]) -> None:
        problem = found.exception()
        if problem is not None:
            to.set_exception(problem)
        else:
            to.set_result(part(found.result()))

    return done
