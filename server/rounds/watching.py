"""A run as it is watched from outside: progress, ended rounds, bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from nomoat.server.rounds.records import RoundRecord

WAITING = "waiting for volunteers"  # the phase before a round opens


@dataclass(frozen=True)
class RoundProgress:
    """The phase a round is in, how many volunteers it asked, and how many of those answered."""

    round: int
    phase: str
    answered: int
    asked: int


class Watcher(Protocol):
    """A terminal, a page or a log that follows a run."""

    def progress(self, progress: RoundProgress) -> None:
        """Take note that something moved inside a round."""

    def ended(self, record: RoundRecord) -> None:
        """Take note that a round ended."""


@dataclass
class Traffic:
    """Bytes to and from the coordinator, all volunteers together."""

    up: int = 0
    down: int = 0


@dataclass
class TrafficMeter:
    """Bytes by rounds. total: what a port has carried so far; None: payload is counted instead."""

    total: Callable[[], Traffic] | None = None
    _before: Traffic = field(default_factory=Traffic)

    def since_last(self, payload: Traffic) -> Traffic:
        """Bytes since this was last asked; `payload` where no port carries any."""
        if self.total is None:
            return payload
        before, self._before = self._before, self.total()
        return Traffic(self._before.up - before.up, self._before.down - before.down)
