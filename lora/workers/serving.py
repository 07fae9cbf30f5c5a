"""One worker's life, as the pool's thread leads it: start, jobs, replacement, turns at the GPU."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cached_property
from queue import Empty, SimpleQueue
from typing import Any

from nomoat.aggregation.errors import NomoatError
from nomoat.lora.memory.holding import holding_bytes
from nomoat.lora.training.checkpoint import Paused
from nomoat.lora.training.steps import TrainingStep
from nomoat.lora.workers import jobs
from nomoat.lora.workers.gpu_turn import HAND_OVER_S, WorkerTurn
from nomoat.lora.workers.process import WorkerProcess, failure, start

LOOK_S = 0.5  # at whether a turn at the GPU is over, while a job runs


@dataclass(frozen=True, slots=True)
class Task:
    """A job and what becomes of it."""

    job: jobs.Job
    future: Future[Any] = field(default_factory=Future)


@dataclass(eq=False)
class PoolState:
    """All that a pool's threads share.

    doing: the job of each worker. begun: whose training has taken its first piece, or is about to.
    share: of the time, that may be worked. device_known: set once on_gpu is. stepped:
    told of the steps of trainings.
    """

    base: jobs.HeldBase
    context: Any
    turn: WorkerTurn
    tasks: SimpleQueue[Task | None] = field(default_factory=SimpleQueue)
    closed: bool = False
    pausing: bool = False
    killing: bool = False
    share: float = 1.0
    on_gpu: bool | None = None
    device_known: threading.Event = field(default_factory=threading.Event)
    doing: dict[int, jobs.Job] = field(default_factory=dict)
    begun: set[int] = field(default_factory=set)
    busy: list[jobs.Interval] = field(default_factory=list)
    processes: dict[int, WorkerProcess] = field(default_factory=dict)
    gpu_pids: frozenset[int] = frozenset()
    stepped: Callable[[TrainingStep], None] = lambda _step: None

    @cached_property
    def holding(self) -> int | None:
        """Bytes of the GPU that holding the base takes, None if unknown or there is none."""
        return holding_bytes(self.base.folder, self.base.bits) if self.turn.needed else None

    @property
    def ending(self) -> bool:
        """True once what is queued is not wanted any more."""
        return self.pausing or self.killing

    def keeps(self, index: int) -> bool:
        """Tell whether this worker's job has something to keep, and a place for it."""
        job = self.doing.get(index)
        trains = isinstance(job, jobs.TrainJob) and job.checkpoint is not None
        return trains and index in self.begun


class Serving:
    """Worker number `index` of a pool, and the thread that hands it jobs one by one."""

    def __init__(self, state: PoolState, index: int) -> None:
        self._state, self._index = state, index
        self._process: WorkerProcess | None = None
        self._problem: NomoatError | None = None  # why there is none
        self.thread = threading.Thread(target=self._serve, name=f"worker {index}", daemon=True)

    def _serve(self) -> None:
        state = self._state
        if self._index:  # a GPU takes one worker, and only a worker knows whether there is one
            state.device_known.wait()
            if state.on_gpu:
                return
        try:
            if not state.turn.needed:  # load before there is work
                self._start()
            while (task := self._next()) is not None:
                if task.future.set_running_or_notify_cancel():
                    self._work(task)
        finally:
            self._end(0.0 if state.pausing else None)
            state.on_gpu = state.turn.needed if state.on_gpu is None else state.on_gpu
            state.device_known.set()

    def _next(self) -> Task | None:
        """Wait for a task, and make room for others at the GPU meanwhile."""
        while True:
            try:
                waits = self._process is not None and self._state.turn.needed
                return self._state.tasks.get(timeout=HAND_OVER_S if waits else None)
            except Empty:
                if self._state.turn.is_over(idle=True):
                    self._end()

    def _work(self, task: Task) -> None:
        """Do a task to its end, in as many turns as it takes."""
        while not task.future.done():
            need = jobs.need_bytes(task.job, self._state.holding)
            if self._state.turn.is_over(idle=False) or not self._state.turn.fits(need):
                self._end()
            if self._process is None:
                self._take_turn(need)
            if self._process is None:
                task.future.set_exception(self._why_none())
            else:
                self._do(self._process, task)

    def _why_none(self) -> Exception:
        if self._state.pausing:
            return Paused()
        return self._problem or NomoatError("the worker pool was closed")

    def _take_turn(self, need: int | None) -> None:
        """Start a worker once it is its turn; there is none if it is not wanted any more."""
        self._problem = None
        if self._state.turn.take(need, lambda: not self._state.ending):
            self._start()

    def _start(self) -> None:
        """Start a worker and wait until it has loaded the base."""
        state = self._state
        try:
            process = start(state.context, state.base)
        except OSError as problem:
            self._failed(NomoatError(f"a worker process cannot be started: {problem}"))
            return
        state.processes[self._index] = self._process = process
        self._computes(frozenset())
        if state.ending:  # `pause` may have looked before this process was noted
            process.kill()
        if state.share < 1.0:
            process.tell(jobs.Throttle(state.share))
        try:
            what, value = process.hear()
            if what == "device":
                self._device_is(*value)
                what, value = process.hear()
        except (EOFError, OSError):
            self._failed(process.died())
            return
        if what != "ready":
            self._failed(failure(what, value))

    def _computes(self, pids: frozenset[int]) -> None:
        """Note under which ids this worker computes, for those who ask whose process that is."""
        assert self._process is not None
        self._state.gpu_pids = pids
        self._state.turn.used_by(pids | {self._process.process.pid or 0})

    def _device_is(self, kind: str, pids: frozenset[int]) -> None:
        self._computes(pids)
        self._state.on_gpu = kind != "cpu"
        if not self._state.on_gpu:
            self._state.turn.not_on_gpu()
        self._state.device_known.set()

    def _failed(self, problem: NomoatError) -> None:
        """Note that there is no worker, and why; the next task tries again."""
        self._problem, self._process = problem, None
        self._state.turn.give_back()
        self._state.device_known.set()

    def _do(self, process: WorkerProcess, task: Task) -> None:
        state, index = self._state, self._index
        state.doing[index] = task.job
        try:
            process.tell(task.job)
            (what, value), handed_over = self._answer(process)
        except (EOFError, OSError):
            self._failed(process.died())
            task.future.set_exception(self._why_none())
            return
        finally:
            state.doing.pop(index, None)
            state.begun.discard(index)
        if what == "lost":
            self._end()  # first: what is tried next needs its memory
        if what == "paused":
            if handed_over and not state.ending:
                self._end()  # and go on in the next turn
            else:
                task.future.set_exception(Paused())
        elif what == "done":
            result, interval = value
            state.busy.append(interval)
            task.future.set_result(result)
        else:
            task.future.set_exception(failure(what, value))

    def _answer(self, process: WorkerProcess) -> tuple[tuple[str, Any], bool]:
        """Wait for the job's end; (its answer, whether it was paused for another's turn)."""
        state, handed_over = self._state, False
        while True:
            while state.turn.needed and not process.pipe.poll(LOOK_S):
                if not handed_over and state.keeps(self._index) and state.turn.is_over(idle=False):
                    process.tell(jobs.Pause())
                    handed_over = True
            answer = process.hear()
            if answer[0] == "begun":
                state.begun.add(self._index)
            elif answer[0] == "step":
                state.stepped(answer[1])
            else:
                return answer, handed_over

    def _end(self, timeout_s: float | None = None) -> None:
        """End the worker, and the turn it had."""
        if self._process is not None:
            self._process.stop() if timeout_s is None else self._process.stop(timeout_s)
            self._process = None
        self._state.gpu_pids = frozenset()
        self._state.turn.give_back()


def serve(state: PoolState, count: int) -> list[Serving]:
    """Start the threads of that many workers."""
    found = [Serving(state, index) for index in range(count)]
    for serving in found:
        serving.thread.start()
    return found
