"""A scan as it is asked for, and what it found; free of torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ScanPlan:
    """The texts to try: so many of chance, so many rare ones; `own` besides the known ones.

    questions: rows each is tried on. seconds: no text is begun after that.
    """

    seed: bytes
    own: tuple[str, ...] = ()
    random: int = 24
    rare: int = 24
    questions: int = 6
    seconds: float = 20.0


@dataclass(frozen=True, slots=True)
class Shifts:
    """Text → shift, in the order they were tried, of those of `asked` there was time for."""

    of: dict[str, float]
    asked: int
