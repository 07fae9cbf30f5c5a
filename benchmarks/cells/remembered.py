"""Answers of a pool of workers that are asked for again: cells of one seed share most trainings.

A training or measurement repeats to the bit from the same rows, adapter, settings and seed, so
that a cell only computes what its liars have changed.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import Future
from typing import Any

from nomoat.lora.workers.jobs import EvaluateJob, Job, TrainJob
from nomoat.lora.workers.pool import Pool


class RememberedAnswers:
    """A pool that computes each training and each measurement once; all else it passes on."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._answers: dict[bytes, Future[Any]] = {}

    def submit(self, job: Job) -> Future[Any]:
        """The answer there is to the same job, else that of a worker."""
        if not isinstance(job, TrainJob | EvaluateJob) or _carries_more(job):
            return self._pool.submit(job)
        key = _digest(job)
        if key not in self._answers:
            self._answers[key] = self._pool.submit(job)
        return self._answers[key]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)


def _carries_more(job: TrainJob | EvaluateJob) -> bool:
    """Modules or moments of its own, which the digest does not hold."""
    return isinstance(job, TrainJob) and not (job.frozen is None and job.moments is None)


def _digest(job: TrainJob | EvaluateJob) -> bytes:
    """Of everything that the answer depends on; a file by what is in it."""
    found = hashlib.sha256(job.shard.read_bytes())
    found.update(b"" if job.vector is None else job.vector.tobytes())
    drawn = (job.seed, job.share) if isinstance(job, TrainJob) else ()
    found.update(repr((type(job).__name__, job.spec, job.settings, drawn)).encode())
    return found.digest()
