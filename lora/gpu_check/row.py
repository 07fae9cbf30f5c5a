"""A row of the table: a program, what it is expected to see, and what it saw."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nomoat.aggregation.errors import NomoatError


class NotAsExpected(NomoatError):
    """Seen something else than what the row expects; says what."""


@dataclass(frozen=True, slots=True)
class CheckPlace:
    """The device that is tried, a base to try it with, and a folder of the row's own."""

    device: str
    model: str
    folder: Path


@dataclass(frozen=True, slots=True)
class GpuRow:
    """A program that returns what it saw, or raises. alone: nothing else may run beside it.

    The program is a function of a module: it is handed to another process by its name. pretended:
    variables that its process is started with.
    """

    what: str
    expected: str
    limit_s: float
    program: Callable[[CheckPlace], str]
    alone: bool = False
    pretended: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class SeenRow:
    """The end of a row."""

    what: str
    expected: str
    seen: str
    ok: bool
    seconds: float


def expect(truth: bool, seen: str) -> str:
    """Return `seen` if it is as expected; NotAsExpected with it if not."""
    if not truth:
        raise NotAsExpected(seen)
    return seen
