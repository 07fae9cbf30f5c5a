"""The shared workers of one process."""

from __future__ import annotations

import threading

from nomoat.client.machine.limits_settings import MachineSettings
from nomoat.client.training.shared_worker import SharedWorker
from nomoat.lora.workers.jobs import HeldBase


class SharedWorkers:
    """One shared worker for each base model and way of holding it."""

    def __init__(self) -> None:
        self._workers: dict[HeldBase, SharedWorker] = {}
        self._lock = threading.Lock()

    def worker(
        self, base_hash: bytes, model: str, device: str, machine: MachineSettings
    ) -> SharedWorker:
        """The worker with the base of this content hash, which lies at `model`."""
        bits, threads, layout = machine.base_bits, machine.cores, machine.layout
        with self._lock:
            key = HeldBase("", device, bits, threads, base_hash, layout)
            made = SharedWorker(model, device, bits, threads, base_hash=base_hash, layout=layout)
            return self._workers.setdefault(key, made)

    @property
    def pids(self) -> frozenset[int]:
        """All workers' process ids."""
        with self._lock:
            return frozenset().union(*(worker.pids for worker in self._workers.values()))
