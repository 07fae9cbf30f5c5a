"""A pool's turns at the GPUs it uses: drawn when there is work, given back when idle."""

from __future__ import annotations

from collections.abc import Callable

from nomoat.lora.device.gpu_queue import GpuQueue, Turn, queues_for

HAND_OVER_S = 2.0  # idle so long, a worker makes room for whoever waits


class WorkerTurn:
    """At most one ticket at a time of each GPU. Without a GPU nothing is waited for.

    Everybody draws at one GPU after the other, in one order, so that no two wait for each other.
    told: why a worker has to wait, in words; None when that is over.
    """

    told: Callable[[str | None], None] = staticmethod(lambda reason: None)

    def __init__(self, device: str) -> None:
        self._queues: tuple[GpuQueue, ...] = queues_for(device)
        self._turns: list[Turn] = []

    @property
    def needed(self) -> bool:
        """True if a worker must not be started before `take`."""
        return bool(self._queues)

    def take(self, need_bytes: int | None, wanted: Callable[[], bool]) -> bool:
        """Wait until a worker may use that much of each GPU; False if not wanted any more."""
        for queue in self._queues[len(self._turns) :]:
            turn = queue.draw()
            if turn is None:  # no tickets on this machine
                self.not_on_gpu()
                return True
            self._turns.append(turn)
            if not turn.wait(wanted, self.told, need_bytes):
                self.give_back()
                return False
        return True

    def is_over(self, idle: bool) -> bool:
        """Tell whether the worker must end now, because others wait that it keeps from working."""
        return any(turn.is_over(idle) for turn in self._turns)

    def fits(self, need_bytes: int | None) -> bool:
        """Tell whether the turns that are held are good for a job of this size."""
        return all(turn.fits(need_bytes) for turn in self._turns)

    def used_by(self, pids: frozenset[int]) -> None:
        """Say which processes compute in these turns."""
        for turn in self._turns:
            turn.used_by(pids)

    def give_back(self) -> None:
        """Let others go; after the worker has ended."""
        while self._turns:
            self._turns.pop().give_back()

    def not_on_gpu(self) -> None:
        """Forget about turns: the device turned out to be no GPU."""
        self.give_back()
        self._queues = ()
