"""A volunteer's hands: one worker process that trains, started when asked, gone when idle.

The process that talks to the coordinator never loads torch or a model; memory is given back some
time after the last piece of work.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from nomoat.aggregation.adapter import Adapter
from nomoat.aggregation.messages import TrainSettings
from nomoat.client import work as work_of
from nomoat.client.keepsakes import Keepsakes
from nomoat.client.session import EvaluateWork, TrainWork
from nomoat.client.shards import Shards
from nomoat.client.work import Rows
from nomoat.lora.pool import Pool, end_fork_server
from nomoat.lora.train import Trained

IDLE_S = 120.0


@dataclass
class Hands:
    """Trains and evaluates on this machine's rows. model: folder or hub id."""

    model: str
    shards: Shards
    keepsakes: Keepsakes
    device: str = "auto"
    idle_s: float = IDLE_S
    _pool: Pool | None = field(default=None, init=False)
    _busy: int = field(default=0, init=False)
    _timer: threading.Timer | None = field(default=None, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def train(self, work: TrainWork) -> Trained:
        """Train what `work` says; NomoatError if it cannot be done."""
        pool = self._take()
        try:
            return work_of.train(work, self._rows, self.keepsakes, pool.submit)
        finally:
            self._give_back()

    def evaluate(self, work: EvaluateWork) -> tuple[float, int, float | None]:
        """(mean nats per token, tokens, the same with what is kept) of the rows that were kept."""
        pool = self._take()
        try:
            return work_of.evaluate(work, self._rows, self.keepsakes, pool.submit)
        finally:
            self._give_back()

    def measure(self, adapter: Adapter, settings: TrainSettings) -> tuple[float, int]:
        """Loss of an adapter on the rows that were kept."""
        job = work_of.evaluate_job(self.shards.heldout, adapter, settings)
        pool = self._take()
        try:
            measured = pool.submit(job).result()
        finally:
            self._give_back()
        return measured.loss, measured.tokens

    @property
    def _rows(self) -> Rows:
        return Rows(self.shards.train, self.shards.heldout)

    def close(self) -> None:
        """End the worker at once; what it was doing is lost."""
        with self._lock:
            self._stop_timer()
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.close(now=True)

    def _take(self) -> Pool:
        with self._lock:
            self._stop_timer()
            self._busy += 1
            if self._pool is None:
                self._pool = Pool(self.model, 1, self.device)
            return self._pool

    def _give_back(self) -> None:
        with self._lock:
            self._busy -= 1
            if self._busy == 0:
                self._timer = threading.Timer(self.idle_s, self._rest)
                self._timer.daemon = True
                self._timer.start()

    def _rest(self) -> None:
        with self._lock:
            if self._busy:
                return
            pool, self._pool = self._pool, None
            if pool is not None:  # under the lock: a new pool must not lose its fork server
                pool.close()
                end_fork_server()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
