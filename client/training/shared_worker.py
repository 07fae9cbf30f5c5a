"""The worker process that holds a base model, shared by the communities that build on it.

The process that talks to coordinators never loads torch or a model. A worker is started when there
is a job and ended when there has been none for a while; all communities of this process with one
base take turns at it, so the base is in memory once, and their adapters are exchanged in its slot.

    submit ──▶ queue ──▶ one thread ──▶ pool of one worker ──▶ future

The thread takes the first job whose owner is not paused. Pausing ends the worker, and with it all
the memory it took; a training job has written its checkpoint by then, stays first in the queue,
and is resumed in another worker. One that ran out of memory is tried again in smaller pieces.

    worker = SharedWorker("pocket", device="cpu")
    future = worker.submit(owner, job)
    worker.pause(owner)        # returns when the memory is given back
    worker.resume(owner)
    trained = future.result()
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from nomoat.aggregation.errors import DoesNotFit, LocalProtocolError, NomoatError
from nomoat.client.round.work import Overtaken
from nomoat.lora.layout.parts import WHOLE, Layout
from nomoat.lora.training.checkpoint import Paused
from nomoat.lora.training.steps import TrainingStep
from nomoat.lora.workers.jobs import EvaluateJob, TrainJob
from nomoat.lora.workers.pool import Pool

IDLE_S = 120.0
TURN = "its turn: another community is at work on this machine"
GRACE_S = 10.0  # for a piece of work and its checkpoint; then the worker is killed

Job: TypeAlias = TrainJob | EvaluateJob


class JobOwner(Protocol):
    """A port: one community, which has the worker while a job of its own is done."""

    def prepare(self, job: Job) -> Job:
        """The job as it fits this machine when its turn comes; NomoatError if it does not."""

    def shrink(self, job: Job, problem: DoesNotFit) -> Job:
        """A job that takes less, after this one ran out of memory; DoesNotFit if there is none."""

    def queued(self, reason: str | None) -> None:
        """A job waits for its turn, in words whose; None when that is over."""

    def stepped(self, step: TrainingStep) -> None:
        """A training of this owner's took a step; told of once a second at most."""


@dataclass(eq=False)
class _Entry:
    owner: JobOwner
    job: Job
    future: Future[Any] = field(default_factory=Future)
    prepared: bool = False
    # Logs of communities are told apart by the names of threads (volunteer/runner.py).
    thread_name: str = field(default_factory=lambda: threading.current_thread().name)


@dataclass
class SharedWorker:
    """One base model's worker.

    model: folder or hub id of the base. bits: of its frozen weights; None: as usual. threads: cores
    that training uses. base_hash: of the base's files; what they do not have trains nothing.
    layout: of a base that one GPU does not hold.
    """

    model: str
    device: str = "auto"
    bits: int | None = None
    threads: int = 1
    idle_s: float = IDLE_S
    base_hash: bytes | None = None
    layout: Layout = WHOLE
    _queue: list[_Entry] = field(default_factory=list, init=False)
    _running: _Entry | None = field(default=None, init=False)
    _paused: set[JobOwner] = field(default_factory=set, init=False)
    _waiting: set[JobOwner] = field(default_factory=set, init=False)  # as they were told
    _shares: dict[JobOwner, float] = field(default_factory=dict, init=False)  # of the time
    _share: float = field(default=1.0, init=False)  # as the pool was told
    _pool: Pool | None = field(default=None, init=False)
    _ending: list[Pool] = field(default_factory=list, init=False)  # their processes still are
    _thread: threading.Thread | None = field(default=None, init=False)
    _changed: threading.Condition = field(default_factory=threading.Condition, init=False)

    def submit(self, owner: JobOwner, job: Job) -> Future[Any]:
        """Queue a job: first come, first served. Never blocks.

        The future raises Overtaken if the job is cancelled; an evaluation is not waited for while
        its owner is paused, and raises NomoatError.
        """
        entry = _Entry(owner, job)
        with self._changed:
            if not self._refused(entry):
                self._queue.append(entry)
                self._wake()
        return entry.future

    def pause(self, owner: JobOwner) -> None:
        """End this owner's job and begin none until `resume`; see `release`."""
        with self._changed:
            self._paused.add(owner)
            self._queue = [entry for entry in self._queue if not self._refused(entry)]
            self._wake()
        self.release(owner)

    def resume(self, owner: JobOwner) -> None:
        """Go on."""
        with self._changed:
            self._paused.discard(owner)
            self._wake()

    def cancel(self, owner: JobOwner) -> None:
        """End this owner's job, and drop those that wait: whoever asked for them has gone on."""
        problem = Overtaken("this job is not wanted any more")
        with self._changed:
            running = self._running
            at_it = running is not None and running.owner is owner
            for entry in [*self._queue, *([running] if running is not None else [])]:
                if entry.owner is owner and not entry.future.done():
                    entry.future.set_exception(problem)
            self._queue = [entry for entry in self._queue if entry.owner is not owner]
            self._wake()
        if at_it:
            self.release(owner)

    def release(self, owner: JobOwner) -> None:
        """Give the memory back, unless another owner's job is being done.

        When it returns, that has happened; a training job has written its checkpoint first.
        """
        with self._changed:
            if self._running is not None and self._running.owner is not owner:
                return
            pool = self._put_away()
        if pool is not None:
            pool.pause(GRACE_S)
            self._ending.remove(pool)

    def limit(self, owner: JobOwner, share: float) -> None:
        """Spend this share of the time on this owner's training jobs."""
        with self._changed:
            self._shares[owner] = share
            if self._pool is not None and (self._running is None or self._running.owner is owner):
                self._keep_to(self._pool, share)

    @property
    def pids(self) -> frozenset[int]:
        """Our processes: the worker, and one that is just being ended."""
        pools = [*self._ending, *([self._pool] if self._pool is not None else [])]
        return frozenset().union(*(pool.pids for pool in pools))

    def works_for(self, owner: JobOwner) -> bool:
        """Return True while the worker is at a job of this owner, its model loaded."""
        running, pool = self._running, self._pool
        at_it = running is not None and running.owner is owner
        return at_it and pool is not None and pool.working

    def _refused(self, entry: _Entry) -> bool:
        """Fail what cannot wait: an evaluation whose owner is paused."""
        if entry.owner in self._paused and isinstance(entry.job, EvaluateJob):
            entry.future.set_exception(NomoatError("paused while evaluating"))
            return True
        return False

    def _wake(self) -> None:
        """Let the thread and the owners know that something has changed."""
        if self._thread is None and self._first() is not None:
            self._thread = threading.Thread(target=self._serve, name="shared worker", daemon=True)
            self._thread.start()
        self._changed.notify_all()
        before, self._waiting = self._waiting, self._kept_waiting()
        for owner in before ^ self._waiting:
            owner.queued(TURN if owner in self._waiting else None)

    def _kept_waiting(self) -> set[JobOwner]:
        """The owners whose job waits for another owner's to end."""
        if self._running is None:
            return set()
        owners = {entry.owner for entry in self._queue}
        return owners - self._paused - {self._running.owner}

    def _first(self) -> _Entry | None:
        return next((entry for entry in self._queue if entry.owner not in self._paused), None)

    def _serve(self) -> None:
        while (entry := self._next()) is not None:
            threading.current_thread().name = entry.thread_name
            try:
                self._end(entry, result=self._result(entry))
            except Exception as problem:  # noqa: BLE001 - it is the future's
                self._take_back(entry, problem)

    def _next(self) -> _Entry | None:
        """The next job to do; None, and the worker is ended, if there was none for `idle_s`."""
        with self._changed:
            self._changed.wait_for(lambda: self._first() is not None, self.idle_s)
            entry = self._first()
            if entry is not None:
                self._queue.remove(entry)
                self._running = entry
                self._wake()
                return entry
            self._thread = None
            pool = self._put_away()
        if pool is not None:
            pool.close()
            self._ending.remove(pool)
        return None

    def _result(self, entry: _Entry) -> Any:
        if not entry.prepared:
            entry.job, entry.prepared = entry.owner.prepare(entry.job), True
        with self._changed:
            if entry.owner in self._paused or entry.future.done():
                raise Paused
            if self._pool is None:
                self._pool, self._share = self._start(), 1.0
            self._keep_to(self._pool, self._shares.get(entry.owner, 1.0))
            try:
                future = self._pool.submit(entry.job)
            except LocalProtocolError:  # the pool was ended between the two
                raise Paused from None
        return future.result()

    def _take_back(self, entry: _Entry, problem: Exception) -> None:
        """Put a job back at the head of the queue if it can still be done, else say that not."""
        try:
            if isinstance(problem, DoesNotFit) and entry.prepared:
                entry.job = entry.owner.shrink(entry.job, problem)
            elif not isinstance(problem, Paused):
                raise problem
        except Exception as final:  # noqa: BLE001 - it is the future's
            self._end(entry, problem=final)
        else:
            self._end(entry, again=True)

    def _end(
        self,
        entry: _Entry,
        *,
        result: object = None,
        problem: Exception | None = None,
        again: bool = False,
    ) -> None:
        """Give the worker to the next job. A job that was cancelled meanwhile has its answer."""
        with self._changed:
            self._running = None
            if not entry.future.done():
                if problem is not None:
                    entry.future.set_exception(problem)
                elif not again:
                    entry.future.set_result(result)
                elif not self._refused(entry):
                    self._queue.insert(0, entry)
            self._wake()

    def _start(self) -> Pool:
        pool = Pool(
            self.model,
            1,
            self.device,
            shared=False,
            bits=self.bits,
            threads=self.threads,
            base_hash=self.base_hash,
            layout=self.layout,
        )
        pool.tell_of_turns(self._tell)
        pool.tell_of_steps(self._stepped)
        return pool

    def _stepped(self, step: TrainingStep) -> None:
        """Pass on a step of the running job."""
        running = self._running
        if running is not None:
            running.owner.stepped(step)

    def _tell(self, reason: str | None) -> None:
        """Pass on why the running job waits for the GPU."""
        running = self._running
        if running is not None:
            running.owner.queued(reason)

    def _keep_to(self, pool: Pool, share: float) -> None:
        if share != self._share:
            pool.limit(share)
            self._share = share

    def _put_away(self) -> Pool | None:
        pool, self._pool = self._pool, None
        if pool is not None:
            self._ending.append(pool)
        return pool
