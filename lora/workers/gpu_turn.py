"""A pool's turns at the GPU, if it uses one: drawn when there is work, given back when idle."""

from __future__ import annotations

from collections.abc import Callable

from nomoat.lora.device.gpu_queue import GpuQueue, Turn, queue_for

HAND_OVER_S = 2.0  # idle so long, a worker makes room for whoever waits


class WorkerTurn:
    """At most one ticket at a time. Without a GPU nothing is waited for.

    told: why a worker has to wait, in words; None when that is over.
    """

    told: Callable[[str | None], None] = staticmethod(lambda reason: None)

    def __init__(self, device: str) -> None:
        self._queue: GpuQueue | None = queue_for(device)
        self._turn: Turn | None = None

    @property
    def needed(self) -> bool:
        """True if a worker must not be started before `take`."""
        return self._queue is not None

    def take(self, need_bytes: int | None, wanted: Callable[[], bool]) -> bool:
        """Wait until a worker may use that much of the GPU; False if it is not wanted any more."""
        if self._queue is None:
            return True
        if self._turn is None:
            self._turn = self._queue.draw()
            if self._turn is None:  # no tickets on this machine
                self._queue = None
                return True
        if self._turn.wait(wanted, self.told, need_bytes):
            return True
        self.give_back()
        return False

    def is_over(self, idle: bool) -> bool:
        """Tell whether the worker must end now, because others wait that it keeps from working."""
        return self._turn is not None and self._turn.is_over(idle)

    def fits(self, need_bytes: int | None) -> bool:
        """Tell whether the turn that is held is good for a job of this size."""
        return self._turn is None or self._turn.fits(need_bytes)

    def used_by(self, pids: frozenset[int]) -> None:
        """Say which processes compute in this turn."""
        if self._turn is not None:
            self._turn.used_by(pids)

    def give_back(self) -> None:
        """Let others go; after the worker has ended."""
        if self._turn is not None:
            self._turn.give_back()
            self._turn = None

    def not_on_gpu(self) -> None:
        """Forget about turns: the device turned out to be no GPU."""
        self.give_back()
        self._queue = None
