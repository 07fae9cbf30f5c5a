"""Trainings gathered into groups that go through one base at once (lora/training/together.py).

A group holds the trainings that stand next to each other among those a grid serves at the same
time, in the order of the volunteers' names: it is the same whichever thread or worker was faster,
so that a run repeats itself to the bit.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Final

from nomoat.aggregation.errors import NomoatError
from nomoat.lora.memory.joint_plan import JointPlan
from nomoat.lora.training.train import Trained
from nomoat.lora.workers.cores import MAX_DEFAULT_WORKERS
from nomoat.lora.workers.jobs import JointJob, TrainJob

if TYPE_CHECKING:
    from nomoat.lora.workers.pool import Pool

PATIENCE_S: Final = 60.0  # for the others of a group; only what should not happen takes so long

_Waiting = tuple[TrainJob, Future[Trained]]


class TrainingGathering:
    """Holds trainings back until everybody whom the grid serves has come to its own.

    served: volunteers that the grid serves at once. Groups of one are not waited for.
    """

    def __init__(self, pool: Pool, plan: JointPlan, served: int = 2 * MAX_DEFAULT_WORKERS) -> None:
        self._pool, self._plan = pool, plan
        self.served = max(served, plan.volunteers)
        self._lock = threading.Lock()
        self._waiting: list[_Waiting] = []
        self._unanswered = 0

    def unanswered(self, count: int) -> None:
        """Note how many messages the grid has not answered; whoever came to train may be all."""
        with self._lock:
            self._unanswered = count
            self._let_go()

    def submit(self, job: TrainJob) -> Future[Trained]:
        """Take a training; its future is done when its group is. One a volunteer at a time."""
        if self._plan.volunteers == 1:
            return self._pool.submit(job)
        future = _Patient(self._hurry)
        with self._lock:
            self._waiting.append((job, future))
            self._let_go()
        return future

    def close(self) -> None:
        """Hold nobody back any more: the pool is closed, and says so to all."""
        self._hurry()

    def _hurry(self) -> None:
        with self._lock:
            self._let_go(all_are_here=True)

    def _let_go(self, all_are_here: bool = False) -> None:
        """Hand on what waits, in groups, once nobody else can come before it has been trained."""
        if not all_are_here and len(self._waiting) < min(self.served, self._unanswered):
            return
        waiting = sorted(self._waiting, key=lambda one: str(one[0].shard))
        self._waiting = []
        size = self._plan.volunteers
        for start in range(0, len(waiting), size):
            self._train(waiting[start : start + size])

    def _train(self, group: list[_Waiting]) -> None:
        parts = tuple(job for job, _ in group)
        job = JointJob(parts, self._plan.most_tokens, self._plan.needs_bytes)
        futures = [future for _, future in group]
        try:
            self._pool.submit(job).add_done_callback(lambda done: _hand_out(done, futures))
        except NomoatError as problem:  # the pool was closed
            for future in futures:
                future.set_exception(problem)


def _hand_out(done: Future[list[Trained | NomoatError]], futures: list[Future[Trained]]) -> None:
    """Give everybody in a group what came of its training."""
    if done.cancelled():
        for future in futures:
            future.cancel()
        return
    problem = done.exception()
    for place, future in enumerate(futures):
        result = problem or done.result()[place]
        if isinstance(result, BaseException):
            future.set_exception(result)
        else:
            future.set_result(result)


class _Patient(Future[Trained]):
    """A future whose reader asks for haste when nothing has come of it for long."""

    def __init__(self, hurry: Callable[[], None]) -> None:
        super().__init__()
        self._hurry = hurry

    def result(self, timeout: float | None = None) -> Trained:
        """The training's outcome."""
        if timeout is not None:
            return super().result(timeout)
        while True:
            try:
                return super().result(PATIENCE_S)
            except TimeoutError:
                if self.done():  # the training itself ran out of time
                    raise
                self._hurry()
