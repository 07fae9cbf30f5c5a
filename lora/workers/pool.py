"""Worker processes that train side by side; this side needs no torch.

One single-threaded process per core gives more steps than one process with many threads, and the
same bits whatever their number. Workers are forked from a server that has imported torch and
loaded the base once, so that they share both (Linux; elsewhere each imports and loads its own).
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, overload

from nomoat.aggregation.errors import DoesNotFit, LocalProtocolError, NomoatError
from nomoat.aggregation.protocol.adapter import AdapterSpec
from nomoat.lora.model.files import resolve
from nomoat.lora.training.checkpoint import Paused
from nomoat.lora.workers import jobs, worker

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

    from nomoat.lora.training.evaluate import Measured
    from nomoat.lora.training.train import Trained

MAX_DEFAULT_WORKERS = 8
CLOSE_TIMEOUT_S = 10.0
KILL_TIMEOUT_S = 2.0  # for all; a worker still starting ends by itself when its parent is gone
PRELOAD_MODULE = "nomoat.lora.workers.preloaded"
PRELOAD_VARIABLE = "NOMOAT_PRELOAD_MODEL"  # preloaded.MODEL_VARIABLE, without importing torch


def default_workers() -> int:
    """Cores this process may use (affinity and container quota), at most 8."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        cores = os.cpu_count() or 1
    return max(1, min(cores, _quota(), MAX_DEFAULT_WORKERS))


def _quota() -> int:
    """Whole cores of the container's CPU quota (cgroup v2), or many if there is none."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return int(quota) // int(period)
    except (OSError, ValueError):  # "max": no quota
        return sys.maxsize


@dataclass(frozen=True, slots=True)
class _Task:
    job: jobs.Job
    future: Future[Any] = field(default_factory=Future)


@dataclass(frozen=True, slots=True)
class _Process:
    process: BaseProcess
    pipe: Connection
    sending: threading.Lock = field(default_factory=threading.Lock)

    def tell(self, what: jobs.Job | jobs.Order) -> None:
        """Send it, unless the process is gone."""
        with self.sending, contextlib.suppress(OSError):
            self.pipe.send(what)

    def hear(self) -> tuple[str, Any]:
        what, value = self.pipe.recv()
        return what, value

    def stop(self, timeout_s: float) -> None:
        self.pipe.close()
        self.process.join(timeout_s)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


class Pool:
    """Workers for one base model. Starting is immediate; the first result waits for the load.

    Raises BadData if `model` is no model. A job's failure is its future's exception, a
    NomoatError in one line; a worker that died is replaced for the next job. shared: workers are
    forked from a server that holds the base and lives as long as this process; else each process
    loads its own, and what it took is given back when it ends. bits: of the base's frozen weights
    (16; 4 or 8 with bitsandbytes); None: as usual. threads: of each worker; with more than one a
    result may differ in its last bits.
    """

    def __init__(
        self,
        model: str,
        workers: int | None = None,
        device: str = "auto",
        *,
        shared: bool = True,
        bits: int | None = None,
        threads: int = 1,
    ) -> None:
        self._folder = str(resolve(model))
        self._device, self._bits, self._threads_each = device, bits, threads
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._closed = self._pausing = False
        self._doing: dict[int, jobs.Job] = {}
        self._begun: set[int] = set()  # whose training has taken its first piece, or is about to
        self._share = 1.0
        self._busy: list[jobs.Interval] = []
        self._processes: dict[int, _Process] = {}
        self._on_gpu: bool | None = False if device == "cpu" else None
        self._device_known = threading.Event()
        if device == "cpu":
            self._device_known.set()
        self._context = _context(self._folder, shared)
        count = workers or default_workers()
        self._threads = [
            threading.Thread(target=self._serve, args=(i,), name=f"worker {i}", daemon=True)
            for i in range(count)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def intervals(self) -> tuple[jobs.Interval, ...]:
        """When each finished job ran."""
        return tuple(self._busy)

    def busy_seconds(self) -> float:
        """Seconds in which at least one worker was at a job that has finished."""
        return jobs.busy_seconds(self.intervals)

    @overload
    def submit(self, job: jobs.TrainJob) -> Future[Trained]: ...
    @overload
    def submit(self, job: jobs.EvaluateJob) -> Future[Measured]: ...
    @overload
    def submit(self, job: jobs.SampleJob) -> Future[tuple[str, ...]]: ...
    @overload
    def submit(self, job: jobs.SpecJob) -> Future[AdapterSpec]: ...
    @overload
    def submit(self, job: jobs.ShardJob) -> Future[jobs.ShardCounts]: ...
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
                process.process.kill()
        ends = time.monotonic() + KILL_TIMEOUT_S
        for thread in self._threads:
            thread.join(max(0.0, ends - time.monotonic()) if now else None)

    def pause(self, grace_s: float) -> None:
        """End the workers at once and give their memory back; unfinished jobs raise Paused.

        A training that has begun and has a checkpoint is laid down first, within `grace_s`; one
        that has not begun has nothing to lose. The pool is closed.
        """
        with self._lock:
            self._closed = self._pausing = True
        while not self._tasks.empty():
            if (task := self._tasks.get()) is not None:
                task.future.set_exception(Paused())
        for index, process in list(self._processes.items()):
            if self._lays_down(index):
                process.tell(jobs.Pause())
            else:
                process.process.kill()
        ends = time.monotonic() + grace_s
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join(max(0.0, ends - time.monotonic()))
        for process in list(self._processes.values()):
            process.process.kill()
            process.process.join()

    def limit(self, share: float) -> None:
        """Let workers spend this share of the time working, in (0, 1]; trainings only."""
        self._share = share
        for process in list(self._processes.values()):
            process.tell(jobs.Duty(share))

    @property
    def working(self) -> bool:
        """Whether a worker that has loaded the base is at a job."""
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

    def _lays_down(self, index: int) -> bool:
        """Whether this worker's job has something to keep, and a place for it."""
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
            if not isinstance(process, _Process):
                process = self._start(index)
            if isinstance(process, _Process):
                process = self._do(process, task, index)
            else:
                task.future.set_exception(Paused() if self._pausing else process)
        if isinstance(process, _Process):
            process.stop(0.0 if self._pausing else CLOSE_TIMEOUT_S)

    def _start(self, index: int) -> _Process | NomoatError:
        """A worker that has loaded the base, or why there is none."""
        try:
            ours, theirs = self._context.Pipe()
            held = self._folder, self._device, self._bits
            arguments = (theirs, *held, self._threads_each)
            child = self._context.Process(target=worker.main, args=arguments, daemon=True)
            with _deaf_to_interrupts():
                child.start()
            theirs.close()
        except OSError as problem:
            self._device_known.set()
            return NomoatError(f"a worker process cannot be started: {problem}")
        process = _Process(child, ours)
        self._processes[index] = process
        if self._pausing:  # `pause` may have looked before this process was noted
            child.kill()
        if self._share < 1.0:
            process.tell(jobs.Duty(self._share))
        try:
            what, value = process.hear()
            if what == "device":
                self._on_gpu = value != "cpu"
                self._device_known.set()
                what, value = process.hear()
        except (EOFError, OSError):
            return _death(process)
        finally:
            self._device_known.set()
        return process if what == "ready" else _failure(what, value)

    def _do(self, process: _Process, task: _Task, index: int) -> _Process | NomoatError:
        self._doing[index] = task.job
        try:
            process.tell(task.job)
            while (answer := process.hear())[0] == "begun":
                self._begun.add(index)
            what, value = answer
        except (EOFError, OSError):
            death = _death(process)
            task.future.set_exception(Paused() if self._pausing else death)
            return death
        finally:
            self._doing.pop(index, None)
            self._begun.discard(index)
        if what == "lost":
            process.stop(CLOSE_TIMEOUT_S)  # first: what is tried next needs its memory
        if what == "paused":
            task.future.set_exception(Paused())
        elif what == "done":
            result, interval = value
            self._busy.append(interval)
            task.future.set_result(result)
        else:
            task.future.set_exception(_failure(what, value))
        return value if what == "lost" else process


def _context(folder: str, shared: bool) -> Any:
    if sys.platform != "linux" or not shared:
        return multiprocessing.get_context("spawn")
    from multiprocessing import forkserver

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([PRELOAD_MODULE])
    with _environment(PRELOAD_VARIABLE, folder), _deaf_to_interrupts():
        forkserver.ensure_running()  # returns at once; imports and loads by itself
    return context


@contextlib.contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """A process started in here inherits the mask: Ctrl-C is its parent's to handle."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]


def _death(process: _Process) -> NomoatError:
    process.stop(CLOSE_TIMEOUT_S)
    code = process.process.exitcode
    if code == -9:
        return DoesNotFit(
            "a worker process was killed, most likely because the memory ran out; use fewer "
            "workers, a smaller batch size or a smaller model"
        )
    return NomoatError(f"a worker process ended unexpectedly (exit code {code})")


def _failure(what: str, value: Any) -> NomoatError:
    if what in ("error", "lost") and isinstance(value, NomoatError):
        return value
    last = str(value).strip().rpartition("\n")[2]
    error = NomoatError(f"a worker failed: {last[:300]}")
    error.__cause__ = RuntimeError(str(value))  # the worker's traceback, for --debug
    return error
