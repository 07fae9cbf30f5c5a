"""A community's training and evaluation on this machine, paused and resumed at the owner's word.

A trainer turns what a round asks into jobs, has them done by a worker that communities share, and
is what the governor pauses. Pausing gives all memory back; training resumes from its checkpoint.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from nomoat.aggregation.errors import DoesNotFit, NomoatError
from nomoat.client.data.split import Split
from nomoat.client.round.work import EvaluateWork, Overtaken, TrainWork
from nomoat.client.training import round_jobs
from nomoat.client.training.base_loss import BaseLossFile, rows_digest
from nomoat.client.training.personal_state import PersonalStates
from nomoat.client.training.shared_worker import Job, SharedWorker
from nomoat.lora.data.row_counts import RowUse
from nomoat.lora.training.steps import TrainingStep
from nomoat.lora.training.train import CPU_TOKENS, Trained
from nomoat.lora.workers.jobs import EvaluateJob, TrainJob

LEAST_TOKENS = 16

log = logging.getLogger(__name__)


class RowsOfNow(Protocol):
    """A function that gives the rows of the next piece of work; BadData if there are none."""

    def __call__(self, current: Split, *, measuring: bool) -> Split:
        """Return `current`, or what has taken its place. measuring: the work is an evaluation."""


def as_they_were(current: Split, *, measuring: bool) -> Split:
    """Work on the rows there were at the start."""
    del measuring
    return current


@dataclass(eq=False)
class Trainer:
    """Trains and evaluates one community's work on this machine's rows.

    checkpoint: the file of a training job that is interrupted. fit: makes a job fit this machine's
    memory when its turn comes; it may raise DoesNotFit. on_queued: told why a job
    waits for its turn, and None when that is over. on_rows: told "train" or "measure", and what
    the round's length made of those rows. base_loss: keeps what the base alone loses on them.
    """

    worker: SharedWorker
    split: Split
    personal_states: PersonalStates
    checkpoint: Path | None = None
    fit: Callable[[TrainJob], TrainJob] = lambda job: job
    on_queued: Callable[[str | None], None] = lambda reason: None
    rows_of_now: RowsOfNow = as_they_were
    on_rows: Callable[[str, RowUse], None] = lambda use, rows: None
    on_step: Callable[[TrainingStep], None] = lambda step: None
    base_loss: BaseLossFile | None = None
    _at_work: int = field(default=0, init=False)  # pauses included
    _overtaken: bool = field(default=False, init=False)
    _closed: bool = field(default=False, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def train(self, work: TrainWork) -> Trained:
        """Train what `work` says, however often it is paused.

        Overtaken if the coordinator has gone on, NomoatError if it cannot be done.
        """
        with self._working():
            self.split = self.rows_of_now(self.split, measuring=False)
            return round_jobs.train(work, self.split, self.personal_states, self._submit)

    def run(self, job: TrainJob) -> Trained:
        """Run one training job to its end, in as many workers and pieces as it takes."""
        with self._working():
            trained: Trained = self._submit(job).result()
            return trained

    def evaluate(self, work: EvaluateWork) -> tuple[float, int, float | None]:
        """(mean nats per token, tokens, the same with what is kept here) of the held-out rows.

        NomoatError if paused, or if the rows are gone.
        """
        with self._working():
            self.split = self.rows_of_now(self.split, measuring=True)
            found = round_jobs.evaluate(work, self.split, self.personal_states, self._submit)
            self._measure_base(work)
            return found

    def tend(self) -> None:
        """Look at the data while nothing is done: it may be gone, or have been edited."""
        if not self.at_work:
            with contextlib.suppress(NomoatError):  # said where it was noticed
                self.split = self.rows_of_now(self.split, measuring=True)

    @property
    def pids(self) -> frozenset[int]:
        """Processes that work for us."""
        return self.worker.pids

    @property
    def working(self) -> bool:
        """True while a worker is at it, its model loaded."""
        return self.worker.works_for(self)

    @property
    def at_work(self) -> bool:
        """True while a piece of work is under way, paused or not."""
        return self._at_work > 0

    def pause(self) -> None:
        """Write a checkpoint of what is being done, end the worker, begin nothing until resume."""
        self.worker.pause(self)

    def resume(self) -> None:
        """Go on."""
        self.worker.resume(self)

    def overtake(self) -> None:
        """Give up what is being done: whoever asked for it has gone on."""
        with self._lock:
            if not self._at_work:
                return
            self._overtaken = True
        self.worker.cancel(self)

    def limit(self, share: float) -> None:
        """Spend this share of the time training."""
        self.worker.limit(self, share)

    def close(self) -> None:
        """Give up what is being done and the memory it takes; nothing is begun any more."""
        with self._lock:
            self._closed = True
        self.worker.cancel(self)
        self.worker.release(self)

    def prepare(self, job: Job) -> Job:
        """The job as it fits this machine now."""
        if isinstance(job, EvaluateJob):
            return self._fit_evaluation(job)
        fitted = self.fit(replace(job, checkpoint=self.checkpoint))
        if fitted.settings.seq_len < job.settings.seq_len:
            least, whole = fitted.settings.seq_len, job.settings.seq_len
            log.warning("rows are cut at %d of %d tokens: more does not fit", least, whole)
        return fitted

    def shrink(self, job: Job, problem: DoesNotFit) -> Job:
        """A job that takes less memory; DoesNotFit if there is none."""
        if isinstance(job, TrainJob):
            return smaller(job)
        most, least = job.most_tokens, job.settings.seq_len
        if most is None or most <= least:
            raise problem
        return replace(job, most_tokens=max(least, most // 2))  # what is free has changed

    def queued(self, reason: str | None) -> None:
        """A job waits for its turn, or that is over."""
        self.on_queued(reason)

    def stepped(self, step: TrainingStep) -> None:
        """A training took a step."""
        self.on_step(step)

    def _submit(self, job: Job) -> Future[Any]:
        with self._lock:
            if self._overtaken or self._closed:
                raise Overtaken("this job is not wanted any more")
            future = self.worker.submit(self, job)
        future.add_done_callback(partial(self._tell_rows, job))
        return future

    def _measure_base(self, work: EvaluateWork) -> None:
        """Have the base alone measured on the same rows, after this answer, unless it was."""
        file, heldout, seq_len = self.base_loss, self.split.heldout, work.task.settings.seq_len
        rows = rows_digest(heldout, seq_len)
        if file is None or not rows or file.loss(rows) is not None:
            return

        def keep(future: Future[Any]) -> None:
            done = not future.cancelled() and future.exception() is None
            if done and rows_digest(heldout, seq_len) == rows:  # they are still the same
                file.keep(rows, future.result().loss)

        job = EvaluateJob(heldout, work.adapter.spec, None, work.task.settings)
        with contextlib.suppress(NomoatError):  # closed meanwhile: another time
            self._submit(job).add_done_callback(keep)

    def _tell_rows(self, job: Job, future: Future[Any]) -> None:
        """Tell what became of the rows that a job was done on."""
        if future.cancelled() or future.exception() is not None:
            return
        rows: RowUse | None = future.result().rows
        if rows is not None:
            self.on_rows("train" if isinstance(job, TrainJob) else "measure", rows)

    def _fit_evaluation(self, job: EvaluateJob) -> EvaluateJob:
        """As much at once as training with these settings may have."""
        training = TrainJob(job.shard, job.spec, np.empty(0, np.float32), job.settings, b"")
        try:
            fits = self.fit(training)
        except DoesNotFit:  # that would; without a gradient, one row may
            return replace(job, most_tokens=job.settings.seq_len)
        return replace(job, most_tokens=fits.most_tokens, needs_bytes=fits.needs_bytes)

    @contextmanager
    def _working(self) -> Iterator[None]:
        """While it is open, a piece of work is under way; `overtake` ends it, and no later one."""
        with self._lock:
            if not self._at_work:
                self._overtaken = False
            self._at_work += 1
        try:
            yield
        finally:
            with self._lock:
                self._at_work -= 1


def smaller(job: TrainJob) -> TrainJob:
    """The job to try when a worker ran out of memory: half as much at once, then recomputing.

    DoesNotFit after that.
    """
    tokens = job.most_tokens or max(CPU_TOKENS, job.settings.seq_len)
    if tokens > max(job.settings.seq_len, LEAST_TOKENS):
        return replace(job, most_tokens=max(job.settings.seq_len, tokens // 2))
    if not job.checkpointing:
        return replace(job, checkpointing=True)
    raise DoesNotFit(
        "memory ran out with one row at a time and recomputed activations; close other programs, "
        "or ask the community for a shorter sequence or a smaller model"
    )
