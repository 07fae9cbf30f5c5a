"""The shared workers of one process."""

from __future__ import annotations

import threading

from nomoat.client.training.shared_worker import SharedWorker


class SharedWorkers:
    """One shared worker for each base model and way of holding it."""

    def __init__(self) -> None:
        self._workers: dict[tuple[bytes, str, int | None, int], SharedWorker] = {}
        self._lock = threading.Lock()

    def worker(
        self, base_hash: bytes, model: str, device: str, bits: int | None, threads: int = 1
    ) -> SharedWorker:
        """The worker with the base of this content hash, which lies at `model`."""
        with self._lock:
            key = base_hash, device, bits, threads
            return self._workers.setdefault(
                key, SharedWorker(model, device, bits, threads, base_hash=base_hash)
            )

    @property
    def pids(self) -> frozenset[int]:
        """All workers' process ids."""
        with self._lock:
            return frozenset().union(*(worker.pids for worker in self._workers.values()))
