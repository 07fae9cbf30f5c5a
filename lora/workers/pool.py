"""Worker processes that train side by side; this side needs no torch.

A training step on a small model is a chain of small matrix products: threads inside one step wait
for each other, so one single-threaded process per core takes more steps than one process with many
threads. It gives the same bits, too, whatever the number of workers: a sum over one thread has one
order, and a job knows nothing of the others. On a GPU there is one worker, and its kernels take
turns there anyway.

Workers for a CPU are forked from a server that has imported torch and loaded the base, so that all
of them share both (Linux; elsewhere, and where a GPU may be used, each imports and loads its own).
Jobs are queued and handed out first come, first served, by one thread per worker:

    submit ──▶ queue ──▶ thread ──pipe──▶ worker ──▶ future.set_result

A worker that dies fails only the job it was at, and is replaced before the next one. A worker on a
GPU is started when it is the pool's turn there, and ends when others wait and it is idle or its
turn is over (lora/device/turns.py); a run that has a checkpoint is resumed in the next turn.

    with Pool(model, workers=2) as pool:
        spec = pool.submit(SpecJob(rank=8, alpha=16.0)).result().spec
        start = initial_adapter(spec, seed).vector
        futures = [pool.submit(TrainJob(rows, spec, start, settings, seed)) for rows in shards]
        vectors = [future.result().vector for future in futures]
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, overload

from nomoat.aggregation.errors import LocalProtocolError, NomoatError
from nomoat.lora.layout.parts import WHOLE, Layout
from nomoat.lora.model.examination import Examined
from nomoat.lora.model.files import resolve
from nomoat.lora.training.checkpoint import Paused
from nomoat.lora.training.steps import TrainingStep
from nomoat.lora.workers import jobs
from nomoat.lora.workers.cores import default_workers
from nomoat.lora.workers.gpu_turn import WorkerTurn
from nomoat.lora.workers.process import context_for
from nomoat.lora.workers.serving import PoolState, Task, serve

if TYPE_CHECKING:
    from nomoat.lora.canaries.readings import RowReading
    from nomoat.lora.data.lengths import RowLengths
    from nomoat.lora.scan.plan import Shifts
    from nomoat.lora.training.evaluate import MeasuredLoss
    from nomoat.lora.training.train import Trained

KILL_TIMEOUT_S = 2.0  # for all; a worker still starting ends by itself when its parent is gone


class Pool:
    """Workers for one base model. Starting is immediate; the first result waits for the load.

    Raises BadData if `model` is no model. A job's failure is its future's exception, a
    NomoatError in one line; a worker that died is replaced for the next job. shared: workers are
    forked from a server that holds the base and lives as long as this process; else each process
    loads its own, and what it took is given back when it ends. bits: of the base's frozen weights
    (16; 4 or 8 with bitsandbytes); None: as usual. threads: of each worker; with more than one a
    result may differ in its last bits. base_hash: of the base's files, checked when a worker starts
    and at every job. layout: of a base that one GPU does not hold.
    """

    def __init__(  # noqa: PLR0913 - a base, and how it is held: jobs.HeldBase
        self,
        model: str,
        workers: int | None = None,
        device: str = "auto",
        *,
        shared: bool = True,
        bits: int | None = None,
        threads: int = 1,
        base_hash: bytes | None = None,
        layout: Layout = WHOLE,
    ) -> None:
        base = jobs.HeldBase(str(resolve(model)), device, bits, threads, base_hash, layout)
        self._state = PoolState(base, context_for(base, shared), WorkerTurn(device))
        self._lock = threading.Lock()
        if device == "cpu":
            self._state.on_gpu = False
            self._state.device_known.set()
        self._workers = serve(self._state, workers or default_workers())

    @property
    def intervals(self) -> tuple[jobs.Interval, ...]:
        """Spans of time in which each finished job ran."""
        return tuple(self._state.busy)

    def busy_seconds(self) -> float:
        """Return the seconds in which at least one worker was at a job that has finished."""
        return jobs.busy_seconds(self.intervals)

    @overload
    def submit(self, job: jobs.TrainJob) -> Future[Trained]: ...
    @overload
    def submit(self, job: jobs.JointJob) -> Future[list[Trained | NomoatError]]: ...
    @overload
    def submit(self, job: jobs.EvaluateJob) -> Future[MeasuredLoss]: ...
    @overload
    def submit(self, job: jobs.ScanJob) -> Future[Shifts]: ...
    @overload
    def submit(self, job: jobs.RowLossesJob) -> Future[tuple[RowReading, ...]]: ...
    @overload
    def submit(self, job: jobs.SampleJob) -> Future[tuple[str, ...]]: ...
    @overload
    def submit(self, job: jobs.SpecJob) -> Future[Examined]: ...
    @overload
    def submit(self, job: jobs.ShardJob) -> Future[jobs.ShardCounts]: ...
    @overload
    def submit(self, job: jobs.LengthsJob) -> Future[tuple[RowLengths, int | None]]: ...
    def submit(self, job: jobs.Job) -> Future[Any]:
        """Queue a job: first come, first served. Never blocks."""
        with self._lock:
            if self._state.closed:
                raise LocalProtocolError("the worker pool is closed")
            task = Task(job)
            self._state.tasks.put(task)
        return task.future

    def close(self, now: bool = False) -> None:
        """End the workers after what is queued; `now`: drop what is queued and kill them."""
        with self._lock:
            if self._state.closed and not now:
                return
            self._state.closed = True
        if now:
            self._state.killing = True
            self._drop_queued()
        for _ in self._workers:
            self._state.tasks.put(None)
        if now:
            for process in list(self._state.processes.values()):
                process.kill()
        ends = time.monotonic() + KILL_TIMEOUT_S
        for worker in self._workers:
            worker.thread.join(max(0.0, ends - time.monotonic()) if now else None)

    def pause(self, grace_s: float) -> None:
        """End the workers at once and give their memory back; unfinished jobs raise Paused.

        A run that has begun writes its checkpoint first, within `grace_s`, if its job has a place
        for one; what has not begun has nothing to lose. The pool is closed.
        """
        state = self._state
        with self._lock:
            state.closed = state.pausing = True
        while not state.tasks.empty():
            if (task := state.tasks.get()) is not None:
                task.future.set_exception(Paused())
        for index, process in list(state.processes.items()):
            if state.keeps(index):
                process.tell(jobs.Pause())
            else:
                process.kill()
        ends = time.monotonic() + grace_s
        for _ in self._workers:
            state.tasks.put(None)
        for worker in self._workers:
            worker.thread.join(max(0.0, ends - time.monotonic()))
        for process in list(state.processes.values()):
            process.kill()
            process.process.join()

    def limit(self, share: float) -> None:
        """Let workers spend this share of the time working, in (0, 1]; training only."""
        self._state.share = share
        for process in list(self._state.processes.values()):
            process.tell(jobs.Throttle(share))

    def tell_of_turns(self, told: Callable[[str | None], None]) -> None:
        """Call `told` with why work waits for its turn at the GPU, and with None after that."""
        self._state.turn.told = told

    def tell_of_steps(self, told: Callable[[TrainingStep], None]) -> None:
        """Call `told` with steps of trainings, one a second of each worker at most."""
        self._state.stepped = told

    @property
    def working(self) -> bool:
        """True while a worker that has loaded the base is at a job."""
        return bool(self._state.doing)

    @property
    def pids(self) -> frozenset[int]:
        """The workers' process ids, here and as the GPU's driver numbers them."""
        found = (process.process.pid for process in list(self._state.processes.values()))
        return self._state.gpu_pids | {pid for pid in found if pid is not None}

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(now=kind is not None)

    def _drop_queued(self) -> None:
        while not self._state.tasks.empty():
            task = self._state.tasks.get()
            if task is not None:
                task.future.cancel()
