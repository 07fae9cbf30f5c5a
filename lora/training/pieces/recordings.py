"""Recordings of one run, one for each size of the work; none where recording is not possible."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

log = logging.getLogger(__name__)

LEAST_PIECES = 8  # of a run: a recording costs as much as two or three pieces
MOST_SIZES = 24

Size = TypeVar("Size", bound=Hashable)
Recorded = TypeVar("Recorded")


class Recordings(Generic[Size, Recorded]):
    """Recordings by size, made when they are first asked for."""

    def __init__(self) -> None:
        self._made: dict[Size, Recorded] = {}
        self._possible = True

    def get(self, size: Size, make: Callable[[], Recorded]) -> Recorded | None:
        """Return the recording of `size`, None if there can be none."""
        if size in self._made:
            return self._made[size]
        if not self._possible or len(self._made) == MOST_SIZES:
            return None
        try:
            self._made[size] = make()
        except RuntimeError as problem:  # of too little memory, too: eager passes take less
            log.info("training goes on kernel by kernel: %s", str(problem).split("\n", 1)[0])
            self._possible = False
            self._made.clear()
            return None
        return self._made[size]
