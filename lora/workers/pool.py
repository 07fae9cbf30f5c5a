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

A worker that dies fails only the job it was at, and is replaced before the next one.

    with Pool(model, workers=2) as pool:
        spec = pool.submit(SpecJob(rank=8, alpha=16.0)).result().spec
        start = initial_adapter(spec, seed).vector
        futures = [pool.submit(TrainJob(rows, spec, start, settings, seed)) for rows in shards]
        vectors = [future.result().vector for future in futures]
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, overload

from nomoat.aggregation.errors import LocalProtocolError, NomoatError
from nomoat.lora.model.examination import Examined
from nomoat.lora.model.files import resolve
from nomoat.lora.training.checkpoint import Paused
from nomoat.lora.workers import jobs
from nomoat.lora.workers.cores import default_workers
from nomoat.lora.workers.process import WorkerProcess, context_for, failure, start

if TYPE_CHECKING:
    from nomoat.lora.data.lengths import RowLengths
    from nomoat.lora.training.evaluate import MeasuredLoss
    from nomoat.lora.training.train import Trained

KILL_TIMEOUT_S = 2.0  # for all; a worker still starting ends by itself when its parent is gone


@dataclass(frozen=True, slots=True)
class _Task:
    job: jobs.Job
    future: Future[Any] = field(default_factory=Future)


class Pool:
    """Workers for one base model. Starting is immediate; the first result waits for the load.

    Raises BadData if `model` is no model. A job's failure is its future's exception, a
    NomoatError in one line; a worker that died is replaced for the next job. shared: workers are
    forked from a server that holds the base and lives as long as this process; else each process
    loads its own, and what it took is given back when it ends. bits: of the base's frozen weights
    (16; 4 or 8 with bitsandbytes); None: as usual. threads: of each worker; with more than one a
    result may differ in its last bits. base_hash: of the base's files, checked when a worker starts
    and at every job.
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
    ) -> None:
        self._base = jobs.HeldBase(str(resolve(model)), device, bits, threads, base_hash)
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._closed = self._pausing = False
        self._doing: dict[int, jobs.Job] = {}
        self._begun: set[int] = set()  # whose training has taken its first piece, or is about to
        self._share = 1.0
        self._busy: list[jobs.Interval] = []
        self._processes: dict[int, WorkerProcess] = {}
        self._on_gpu: bool | None = False if device == "cpu" else None
        self._device_known = threading.Event()
        if device == "cpu":
            self._device_known.set()
        self._context = context_for(self._base, shared)
        count = workers or default_workers()
        self._threads = [
            threading.Thread(target=self._serve, args=(i,), name=f"worker {i}", daemon=True)
            for i in range(count)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def intervals(self) -> tuple[jobs.Interval, ...]:
        """Spans of time in which each finished job ran."""
        return tuple(self._busy)

    def busy_seconds(self) -> float:
        """Return the seconds in which at least one worker was at a job that has finished."""
        return jobs.busy_seconds(self.intervals)

    @overload
    def submit(self, job: jobs.TrainJob) -> Future[Trained]: ...
    @overload
    def submit(self, job: jobs.EvaluateJob) -> Future[MeasuredLoss]: ...
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
            if self._closed:
                raise LocalProtocolError("the worker pool is closed")
            task = _Task(job)
            self._tasks.put(task)
        return task.future

    def close(self, now: bool = False) -> None:
        """End the workers after what is queued; `now`: drop what is queued and kill them."""
        with self._lock:
            if self._closed and not now:
                return
            self._closed = True
        if now:
            self._drop_queued()
        for _ in self._threads:
            self._tasks.put(None)
        if now:
            for process in list(self._processes.values()):
                process.kill()
        ends = time.monotonic() + KILL_TIMEOUT_S
        for thread in self._threads:
            thread.join(max(0.0, ends - time.monotonic()) if now else None)

    def pause(self, grace_s: float) -> None:
        """End the workers at once and give their memory back; unfinished jobs raise Paused.

        The checkpoint of a training that has begun is written first, within `grace_s`, if its job
        has a place for one; what has not begun has nothing to lose. The pool is closed.
        """
        with self._lock:
            self._closed = self._pausing = True
        while not self._tasks.empty():
            if (task := self._tasks.get()) is not None:
                task.future.set_exception(Paused())
        for index, process in list(self._processes.items()):
            if self._writes_checkpoint(index):
                process.tell(jobs.Pause())
            else:
                process.kill()
        ends = time.monotonic() + grace_s
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join(max(0.0, ends - time.monotonic()))
        for process in list(self._processes.values()):
            process.kill()
            process.process.join()

    def limit(self, share: float) -> None:
        """Let workers spend this share of the time working, in (0, 1]; training only."""
        self._share = share
        for process in list(self._processes.values()):
            process.tell(jobs.Throttle(share))

    @property
    def working(self) -> bool:
        """True while a worker that has loaded the base is at a job."""
        return bool(self._doing)

    @property
    def pids(self) -> frozenset[int]:
        """The workers' process ids."""
        found = (process.process.pid for process in list(self._processes.values()))
        return frozenset(pid for pid in found if pid is not None)

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(now=kind is not None)

    def _writes_checkpoint(self, index: int) -> bool:
        """Tell whether this worker's job has something to keep, and a place for it."""
        job = self._doing.get(index)
        trains = isinstance(job, jobs.TrainJob) and job.checkpoint is not None
        return trains and index in self._begun

    def _drop_queued(self) -> None:
        while not self._tasks.empty():
            task = self._tasks.get()
            if task is not None:
                task.future.cancel()

    def _serve(self, index: int) -> None:
        """One thread per worker: start it, hand it jobs one by one, replace it when it dies."""
        if index:  # a GPU takes one worker, and only a worker knows whether there is one
            self._device_known.wait()
            if self._on_gpu:
                return
        process = self._start(index)
        while (task := self._tasks.get()) is not None:
            if not task.future.set_running_or_notify_cancel():
                continue
            if not isinstance(process, WorkerProcess):
                process = self._start(index)
            if isinstance(process, WorkerProcess):
                process = self._do(process, task, index)
            else:
                task.future.set_exception(Paused() if self._pausing else process)
        if isinstance(process, WorkerProcess):
            if self._pausing:
                process.stop(0.0)
            else:
                process.stop()

    def _start(self, index: int) -> WorkerProcess | NomoatError:
        """Return a worker that has loaded the base, or why there is none."""
        try:
            process = start(self._context, self._base)
        except OSError as problem:
            self._device_known.set()
            return NomoatError(f"a worker process cannot be started: {problem}")
        self._processes[index] = process
        if self._pausing:  # `pause` may have looked before this process was noted
            process.kill()
        if self._share < 1.0:
            process.tell(jobs.Throttle(self._share))
        try:
            what, value = process.hear()
            if what == "device":
                self._on_gpu = value != "cpu"
                self._device_known.set()
                what, value = process.hear()
        except (EOFError, OSError):
            return process.died()
        finally:
            self._device_known.set()
        return process if what == "ready" else failure(what, value)

    def _do(self, process: WorkerProcess, task: _Task, index: int) -> WorkerProcess | NomoatError:
        self._doing[index] = task.job
        try:
            process.tell(task.job)
            while (answer := process.hear())[0] == "begun":
                self._begun.add(index)
            what, value = answer
        except (EOFError, OSError):
            death = process.died()
            task.future.set_exception(Paused() if self._pausing else death)
            return death
        finally:
            self._doing.pop(index, None)
            self._begun.discard(index)
        if what == "lost":
            process.stop()  # first: what is tried next needs its memory
        if what == "paused":
            task.future.set_exception(Paused())
        elif what == "done":
            result, interval = value
            self._busy.append(interval)
            task.future.set_result(result)
        else:
            task.future.set_exception(failure(what, value))
        return value if what == "lost" else process
