"""The community's own evaluation split, measured in a worker process: no torch in this one."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.aggregation.protocol.messages import TrainSettings
from nomoat.lora.workers.jobs import EvaluateJob
from nomoat.lora.workers.pool import Pool

if TYPE_CHECKING:
    from nomoat.lora.training.evaluate import MeasuredLoss


@dataclass
class EvaluationSplit:
    """Rows kept by the community (a file `formats.write_jsonl` wrote), and who measures on them."""

    rows: Path
    settings: TrainSettings
    pool: Pool

    def measure(self, adapter: Adapter) -> Future[float]:
        """The adapter's loss, mean nats per trained token; NomoatError if it cannot be measured."""
        loss: Future[float] = Future()

        def done(measured: Future[MeasuredLoss]) -> None:
            problem = measured.exception()
            if problem is not None:
                loss.set_exception(problem)
            else:
                loss.set_result(measured.result().loss)

        job = EvaluateJob(self.rows, adapter.spec, adapter.vector, self.settings)
        self.pool.submit(job).add_done_callback(done)
        return loss
