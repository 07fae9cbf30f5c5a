"""Between two pieces of work a training worker obeys, saves now and then, and rests.

Orders come through the pipe that jobs come through. A pause writes a checkpoint and ends the job;
so does the death of the parent, for whoever starts again. A share below one sleeps after each
piece, looking at the pipe all the while.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from nomoat.aggregation.errors import NomoatError
from nomoat.lora.device.backends import Device
from nomoat.lora.training.checkpoint import Paused, TrainingCheckpoint, write
from nomoat.lora.training.steps import TrainingStep
from nomoat.lora.workers.jobs import Pause, Throttle

SAVE_EVERY_S = 60.0  # what a kill -9 of the worker costs at most
TELL_EVERY_S = 1.0
MAX_SLEEP_S = 5.0  # slept in pieces: a pause must be seen at once


@dataclass
class WorkerOrders:
    """Orders that a worker has been given and not yet carried out.

    orphaned: set when the parent process is gone. pausing: until a job was ended by it, be it the
    one that follows. training: there is something to write a checkpoint of.
    """

    pipe: Connection
    orphaned: threading.Event = field(default_factory=threading.Event)
    clock: Callable[[], float] = time.monotonic
    share: float = 1.0
    pausing: bool = False
    training: bool = False

    def begin(self) -> None:
        """Say that the first piece of a run is next: before, a pause may kill this process."""
        self.training = True
        self.pipe.send(("begun", None))

    def look(self, wait_s: float = 0.0) -> bool:
        """Read what was ordered, waiting at most `wait_s` for it; True if the work must stop."""
        try:
            while not self._stops and self.pipe.poll(wait_s):
                wait_s = 0.0
                self.obey(self.pipe.recv())
        except (EOFError, OSError):  # the parent is gone, and has not been missed yet
            return True
        return self._stops

    def obey(self, order: object) -> bool:
        """Take an order that needs no job; False if `order` is a job."""
        if isinstance(order, Throttle):
            self.share = order.share
        elif isinstance(order, Pause):
            self.pausing = True
        return isinstance(order, Throttle | Pause)

    @property
    def _stops(self) -> bool:
        return self.pausing or self.orphaned.is_set()


class Between:
    """The hook for one training job (progress.Breaks.between)."""

    def __init__(self, orders: WorkerOrders, path: Path | None, device: Device) -> None:
        self._orders, self._path, self._device = orders, path, device
        self._saved_at = self._worked_from = orders.clock()

    def __call__(self, taken: Callable[[], TrainingCheckpoint]) -> None:
        """Obey, save, rest; raise Paused once the checkpoint is on disk."""
        orders = self._orders
        if orders.look():
            self._stop(taken)
        if orders.share < 1.0 and self._rest():
            self._stop(taken)
        if self._path is not None and orders.clock() - self._saved_at > SAVE_EVERY_S:
            with contextlib.suppress(NomoatError):  # a full disk must not end the run
                write(self._path, taken())
            self._saved_at = orders.clock()
        self._worked_from = orders.clock()

    def _rest(self) -> bool:
        """Sleep so that work is `share` of the time; True if the work must stop."""
        self._device.synchronise()  # else the GPU works on while this sleeps
        orders = self._orders
        until = orders.clock() + sleep_s(orders.share, orders.clock() - self._worked_from)
        while (left := until - orders.clock()) > 0:
            if orders.look(min(left, 0.2)):
                return True
        return False

    def _stop(self, taken: Callable[[], TrainingCheckpoint]) -> None:
        if self._path is not None:
            with contextlib.suppress(
                NomoatError
            ):  # an older checkpoint, or none: then it starts anew
                write(self._path, taken())
        raise Paused


class Telling:
    """The hook that tells the parent of a step, once a second at most (progress.Breaks.told)."""

    def __init__(self, orders: WorkerOrders) -> None:
        self._orders = orders
        self._told_at = -math.inf

    def __call__(self, step: Callable[[], TrainingStep]) -> None:
        """Tell of a step, unless one was told of just now."""
        now = self._orders.clock()
        if now - self._told_at < TELL_EVERY_S:
            return
        self._told_at = now
        with contextlib.suppress(OSError):  # the parent is gone, which `look` finds out
            self._orders.pipe.send(("step", step()))


def sleep_s(share: float, worked_s: float) -> float:
    """Seconds to sleep after work of `worked_s`: w/(w + s) = share, at most MAX_SLEEP_S."""
    if not (math.isfinite(worked_s) and worked_s > 0):
        return 0.0
    return min(MAX_SLEEP_S, worked_s * (1.0 - share) / share)
