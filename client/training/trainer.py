"""A volunteer's hands: its trainings and evaluations at a workbench, paused and taken up again.

Pausing ends the worker, and all the memory it took is given back; a training goes on later where it
was laid down.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from nomoat.aggregation.errors import DoesNotFit, NomoatError
from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.aggregation.protocol.messages import TrainSettings
from nomoat.client.data.split import Split
from nomoat.client.round.session import EvaluateWork, TrainWork
from nomoat.client.training import round_jobs
from nomoat.client.training.personal_state import PersonalStates
from nomoat.client.training.round_jobs import Rows
from nomoat.client.training.shared_worker import SharedWorker
from nomoat.lora.training.checkpoint import Paused
from nomoat.lora.training.evaluate import MeasuredLoss
from nomoat.lora.training.train import CPU_TOKENS, Trained
from nomoat.lora.workers.jobs import EvaluateJob, TrainJob

LEAST_TOKENS = 16

log = logging.getLogger(__name__)


class Overtaken(NomoatError):
    """The coordinator has gone on; nobody waits for this training any more."""


@dataclass(eq=False)
class Trainer:
    """Trains and evaluates one community's work on this machine's rows.

    checkpoint: where a training is laid down. fit: what a job must be like to fit this machine's
    memory, asked before a worker starts; it may raise DoesNotFit. problem: why the last training
    could not be done. trainings: that were done. losses: last measured here, of the community's
    model and of this volunteer's own if it keeps something. queued: told when another community has
    the workbench, and when that is over.
    """

    worker: SharedWorker
    split: Split
    personal_states: PersonalStates
    checkpoint: Path | None = None
    fit: Callable[[TrainJob], TrainJob] = lambda job: job
    queued: Callable[[bool], None] = lambda waits: None
    problem: str | None = field(default=None, init=False)
    trainings: int = field(default=0, init=False)
    losses: tuple[float, float | None] | None = field(default=None, init=False)
    _at_work: int = field(default=0, init=False)  # pauses included
    _going: bool = field(default=True, init=False)
    _overtaken: bool = field(default=False, init=False)
    _closed: bool = field(default=False, init=False)
    _changed: threading.Condition = field(default_factory=threading.Condition, init=False)

    def train(self, work: TrainWork) -> Trained:
        """Train what `work` says, however often it is paused; NomoatError if it cannot be done."""
        self.problem = None
        try:
            with self._working():
                return round_jobs.train(work, self._rows, self.personal_states, self._trained)
        except Overtaken:
            raise
        except NomoatError as problem:
            self.problem = str(problem)
            raise

    def run(self, job: TrainJob) -> Trained:
        """Do one training to its end, in as many workers and pieces as it takes."""
        with self._working():
            while True:
                self._wait_until_going()
                try:
                    trained: Trained = self._do(job)
                except Paused:
                    continue
                except DoesNotFit:
                    job = smaller(job)
                else:
                    self.trainings += 1
                    return trained

    def evaluate(self, work: EvaluateWork) -> tuple[float, int, float | None]:
        """(mean nats per token, tokens, the same with what is kept here) of the held-out rows.

        NomoatError if paused.
        """
        loss, tokens, personal = round_jobs.evaluate(
            work, self._rows, self.personal_states, self._measured
        )
        self.losses = loss, personal
        return loss, tokens, personal

    def measure(self, adapter: Adapter, settings: TrainSettings) -> tuple[float, int]:
        """Loss of an adapter on the rows that were kept."""
        job = round_jobs.evaluate_job(self.split.heldout, adapter, settings)
        measured = self._measured(job).result()
        return measured.loss, measured.tokens

    @property
    def pids(self) -> frozenset[int]:
        """Processes that work for us."""
        return self.worker.pids

    @property
    def working(self) -> bool:
        """Whether a worker is at it right now, its model loaded."""
        return self.worker.works_for(self)

    @property
    def at_work(self) -> bool:
        """Whether a piece of work is under way, paused or not."""
        return self._at_work > 0

    def pause(self) -> None:
        """Lay down what is being done, end the worker and begin nothing until `resume`."""
        with self._changed:
            self._going = False
        self.worker.leave(self)

    def resume(self) -> None:
        """Go on."""
        with self._changed:
            self._going = True
            self._changed.notify_all()

    def overtake(self) -> None:
        """Give up what is being done: whoever asked for it has gone on."""
        with self._changed:
            if not self._at_work:
                return
            self._overtaken = True
            self._changed.notify_all()
        self.worker.leave(self)

    def limit(self, share: float) -> None:
        """Spend this share of the time training."""
        self.worker.limit(self, share)

    def close(self) -> None:
        """End the worker; a training is laid down first."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self.worker.leave(self)

    @property
    def _rows(self) -> Rows:
        return Rows(self.split.train, self.split.heldout)

    def _trained(self, job: TrainJob) -> Future[Trained]:
        """A training, done when this returns."""
        future: Future[Trained] = Future()
        fitted = self.fit(replace(job, checkpoint=self.checkpoint))
        if fitted.settings.seq_len < job.settings.seq_len:
            least, whole = fitted.settings.seq_len, job.settings.seq_len
            log.warning("rows are cut at %d of %d tokens: more does not fit", least, whole)
        future.set_result(self.run(fitted))
        return future

    def _measured(self, job: EvaluateJob) -> Future[MeasuredLoss]:
        future: Future[MeasuredLoss] = Future()
        most, least = self._most_tokens(job), job.settings.seq_len
        with self._working():
            while not future.done():
                try:
                    future.set_result(self._do(replace(job, most_tokens=most)))
                except Paused:
                    raise NomoatError("paused while evaluating") from None
                except DoesNotFit:  # what is free has changed
                    if most is None or most <= least:
                        raise
                    most = max(least, most // 2)
        return future

    def _most_tokens(self, job: EvaluateJob) -> int | None:
        """Of one forward pass of an evaluation: what a training with its settings may have."""
        training = TrainJob(job.shard, job.spec, np.empty(0, np.float32), job.settings, b"")
        try:
            return self.fit(training).most_tokens
        except DoesNotFit:  # that would; without a gradient, one row may
            return job.settings.seq_len

    def _do(self, job: TrainJob | EvaluateJob) -> Any:
        return self.worker.do(self, job, self._wanted, self.queued)

    def _wanted(self) -> bool:
        return self._going and not (self._overtaken or self._closed)

    def _wait_until_going(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._going or self._overtaken or self._closed)
            if self._overtaken or self._closed:
                raise Overtaken("this training is not wanted any more")

    def _working(self) -> _Working:
        return _Working(self)


class _Working:
    """While it is open, a piece of work is under way; `overtake` ends it, and no later one."""

    def __init__(self, trainer: Trainer) -> None:
        self._hands = trainer

    def __enter__(self) -> None:
        with self._hands._changed:
            if not self._hands._at_work:
                self._hands._overtaken = False
            self._hands._at_work += 1

    def __exit__(self, *_: object) -> None:
        with self._hands._changed:
            self._hands._at_work -= 1


def smaller(job: TrainJob) -> TrainJob:
    """What to try when a worker ran out of memory: half as much at once, then recomputing.

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
