"""Companions of a coordinator's rounds: pages, metrics, notices. The rooms above bring it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from nomoat.server.community.opened import OpenCommunity
from nomoat.server.rounds.records import RoundRecord
from nomoat.server.rounds.watching import RoundProgress, Watcher

if TYPE_CHECKING:
    from nomoat.server.host import Deployment


class Beside(Protocol):
    """Runs beside rounds, and never holds them up: it is told in passing, from their thread."""

    def watching(self, community: OpenCommunity) -> AbstractContextManager[Sequence[Watcher]]:
        """Watch the rounds of a community that is about to open."""

    def showing(self, deployment: Deployment) -> AbstractContextManager[Sequence[str]]:
        """Show an open community; lines for the terminal of whoever opened it."""


class Alone:
    """Nothing beside the rounds."""

    def watching(self, community: OpenCommunity) -> AbstractContextManager[Sequence[Watcher]]:
        """Return no watcher."""
        del community
        return nullcontext(())

    def showing(self, deployment: Deployment) -> AbstractContextManager[Sequence[str]]:
        """Say nothing."""
        del deployment
        return nullcontext(())


@dataclass(frozen=True)
class _Watchers:
    watchers: tuple[Watcher, ...]

    def progress(self, progress: RoundProgress) -> None:
        for watcher in self.watchers:
            watcher.progress(progress)

    def ended(self, record: RoundRecord) -> None:
        for watcher in self.watchers:
            watcher.ended(record)


def watched_by(watchers: Sequence[Watcher]) -> Watcher:
    """Return one watcher that tells all of these."""
    return watchers[0] if len(watchers) == 1 else _Watchers(tuple(watchers))
