"""Recordings of one run, one for each size of the work; none where recording is not possible."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Generic, TypeVar

from nomoat.lora.training.out_of_memory import device_lost, out_of_memory

if TYPE_CHECKING:
    from nomoat.lora.device.recording import KernelRecorder

log = logging.getLogger(__name__)

LEAST_PIECES = 8  # of a run: a recording costs as much as two or three pieces
MOST_SIZES = 24

Size = TypeVar("Size", bound=Hashable)
Recorded = TypeVar("Recorded")


class Recordings(Generic[Size, Recorded]):
    """Recordings by size, made when they are first asked for."""

    def __init__(self, recorder: KernelRecorder) -> None:
        self._recorder = recorder
        self._made: dict[Size, Recorded] = {}
        self._too_large: set[Size] = set()
        self._possible = True

    def get(
        self, size: Size, make: Callable[[], Recorded], splits: bool = False
    ) -> Recorded | None:
        """Return the recording of `size`, None if there can be none.

        splits: the work can be done in smaller parts, so that a shortage of memory is raised, when
        nothing is kept any more; work that cannot is done kernel by kernel, which takes less.
        """
        if size in self._made:
            return self._made[size]
        if not self._possible or size in self._too_large or len(self._made) == MOST_SIZES:
            return None
        try:
            self._made[size] = self._attempt(make)
        except RuntimeError as problem:
            self.drop()
            shortage = _shortage(problem)
            if shortage is not None and splits:
                raise shortage from None
            if shortage is None:
                self._possible = False
            else:
                self._too_large.add(size)
            log.info("training goes on kernel by kernel: %s", str(problem).split("\n", 1)[0])
            return None
        return self._made[size]

    def drop(self) -> None:
        """Give all memory of what was recorded back; it is recorded again when it is asked for."""
        self._made.clear()
        self._recorder.begin_anew()

    def _attempt(self, make: Callable[[], Recorded]) -> Recorded:
        """Record; once more if what was recorded before may be what is in the way."""
        try:
            return make()
        except RuntimeError as problem:
            if not self._made or _shortage(problem) is None:
                raise
        self.drop()  # out here: the exception, and all tensors it holds, are gone
        return make()


def _shortage(problem: BaseException | None) -> BaseException | None:
    """Return what says that memory ran out: it, or what it came after, as ending a recording may
    fail for its own part.
    """
    while problem is not None:
        if out_of_memory(problem):
            return None if device_lost(problem) else problem
        problem = problem.__context__
    return None
