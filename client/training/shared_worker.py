"""The worker process that holds a base model: started when asked, gone when idle, one job a time.

All communities of this process that build on one base take turns at one workbench, so the base is
in memory once; their adapters are exchanged in the worker's slot. The process that talks to the
coordinators never loads torch or a model.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from nomoat.aggregation.errors import LocalProtocolError
from nomoat.lora.training.checkpoint import Paused
from nomoat.lora.workers.jobs import EvaluateJob, TrainJob
from nomoat.lora.workers.pool import Pool

IDLE_S = 120.0
GRACE_S = 10.0  # for a piece of work and its checkpoint; then the worker is killed


@dataclass
class SharedWorker:
    """One base model's worker, and whose job it is at.

    model: folder or hub id of the base. bits: of its frozen weights; None: as usual. threads: cores
    that a training uses. A user is any object that stands for one community; it has the bench while
    its job is done.
    """

    model: str
    device: str = "auto"
    bits: int | None = None
    threads: int = 1
    idle_s: float = IDLE_S
    _pool: Pool | None = field(default=None, init=False)
    _user: object | None = field(default=None, init=False)  # whose job is being done
    _shares: dict[object, float] = field(default_factory=dict, init=False)  # user → of the time
    _share: float = field(default=1.0, init=False)  # as the pool was told
    _ending: list[Pool] = field(default_factory=list, init=False)  # their processes still are
    _timer: threading.Timer | None = field(default=None, init=False)
    _changed: threading.Condition = field(default_factory=threading.Condition, init=False)

    def do(
        self,
        user: object,
        job: TrainJob | EvaluateJob,
        wanted: Callable[[], bool],
        queued: Callable[[bool], None],
    ) -> Any:
        """The job's result, once it is this user's turn; Paused if `wanted` stops being true.

        queued: told when it has to wait for its turn, and when that is over.
        """
        pool = self._take(user, wanted, queued)
        try:
            try:
                future = pool.submit(job)
            except LocalProtocolError:  # the pool was ended between the two
                raise Paused from None
            return future.result()
        finally:
            self._give_back()

    def leave(self, user: object) -> None:
        """End this user's job, and give the memory back unless somebody else is at work.

        When it returns, that has happened; a training that has a checkpoint is laid down first.
        """
        with self._changed:
            self._changed.notify_all()  # it may wait for its turn
            if self._user is not None and self._user is not user:
                return
            self._stop_timer()
            pool = self._put_away()
        if pool is not None:
            pool.pause(GRACE_S)
            self._ending.remove(pool)

    def limit(self, user: object, share: float) -> None:
        """Spend this share of the time on trainings of this user."""
        with self._changed:
            self._shares[user] = share
            if self._pool is not None and self._user in (None, user):
                self._keep_to(self._pool, share)

    @property
    def pids(self) -> frozenset[int]:
        """Our processes: the worker, and one that is just being ended."""
        pools = [*self._ending, *([self._pool] if self._pool is not None else [])]
        return frozenset().union(*(pool.pids for pool in pools))

    def works_for(self, user: object) -> bool:
        """Whether the worker is at a job of this user right now, its model loaded."""
        pool = self._pool
        return self._user is user and pool is not None and pool.working

    def _take(
        self, user: object, wanted: Callable[[], bool], queued: Callable[[bool], None]
    ) -> Pool:
        with self._changed:
            if self._user is not None and wanted():
                queued(True)
                self._changed.wait_for(lambda: self._user is None or not wanted())
                queued(False)
            if not wanted():
                raise Paused
            if self._pool is None:  # the model's folder may be away: nobody has the bench then
                self._pool = Pool(
                    self.model,
                    1,
                    self.device,
                    shared=False,
                    bits=self.bits,
                    threads=self.threads,
                )
                self._share = 1.0
            self._user = user
            self._stop_timer()
            self._keep_to(self._pool, self._shares.get(user, 1.0))
            return self._pool

    def _keep_to(self, pool: Pool, share: float) -> None:
        if share != self._share:
            pool.limit(share)
            self._share = share

    def _give_back(self) -> None:
        with self._changed:
            self._user = None
            self._changed.notify_all()
            if self._pool is not None:
                self._timer = threading.Timer(self.idle_s, self._rest)
                self._timer.daemon = True
                self._timer.start()

    def _rest(self) -> None:
        with self._changed:
            if self._user is not None:
                return
            pool = self._put_away()
        if pool is not None:
            pool.close()
            self._ending.remove(pool)

    def _put_away(self) -> Pool | None:
        pool, self._pool = self._pool, None
        if pool is not None:
            self._ending.append(pool)
        return pool

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class SharedWorkers:
    """The workbenches of one process: one for each base model and way of holding it."""

    def __init__(self) -> None:
        self._benches: dict[tuple[bytes, str, int | None, int], SharedWorker] = {}
        self._lock = threading.Lock()

    def worker(
        self, base_hash: bytes, model: str, device: str, bits: int | None, threads: int = 1
    ) -> SharedWorker:
        """The workbench with the base of this content hash, which lies at `model`."""
        with self._lock:
            key = base_hash, device, bits, threads
            return self._benches.setdefault(key, SharedWorker(model, device, bits, threads))

    @property
    def pids(self) -> frozenset[int]:
        """All workers' process ids."""
        with self._lock:
            return frozenset().union(*(worker.pids for worker in self._benches.values()))
