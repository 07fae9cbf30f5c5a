"""Events that are news, on their way to whoever asked for them: nobody's round waits for that."""

from __future__ import annotations

import logging
import queue
import threading
from abc import ABC, abstractmethod
from typing import Final

from nomoat.desk.watching.events import NEWS, CommunityEvent

MOST_WAITING: Final = 1000

log = logging.getLogger(__name__)


class NewsQueue(ABC):
    """A sink of events, told on by a thread of its own; dropped when too many wait."""

    def __init__(self) -> None:
        self._waiting: queue.Queue[CommunityEvent] = queue.Queue(MOST_WAITING)

    def __call__(self, event: CommunityEvent) -> None:
        """Queue an event that is news; the caller never waits."""
        if event.name not in NEWS:
            return
        try:
            self._waiting.put_nowait(event)
        except queue.Full:
            log.warning("a notice of %s was dropped: too many wait", event.name)

    def run(self, stop: threading.Event) -> None:
        """Tell what is queued until `stop` is set."""
        while not stop.is_set():
            try:
                event = self._waiting.get(timeout=0.5)
            except queue.Empty:
                continue
            self.tell(event, stop)

    @abstractmethod
    def tell(self, event: CommunityEvent, stop: threading.Event) -> None:
        """Tell one event; gives up when `stop` is set."""
