"""Notices for people: one sentence to mail, phones and chats, by way of Apprise.

watch.notify in community.toml holds Apprise's URLs (`ntfy://topic`, `mailto://…`, `matrix://…`);
they may hold passwords, so they are never logged. A sentence names no volunteer.
"""

from __future__ import annotations

import importlib
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

from nomoat.aggregation.errors import UsageError
from nomoat.aggregation.plain_text import one_line
from nomoat.desk.watching.events import CommunityEvent
from nomoat.desk.watching.news_queue import NewsQueue

WANTED: Final = "watch.notify needs Apprise: pip install apprise"

log = logging.getLogger(__name__)

Speak = Callable[[str, str], bool]  # (title, sentence) → it was delivered to all


def sentence(event: CommunityEvent) -> str:
    """One event for a person."""
    said = event.fields
    if event.name == "round.committed":
        loss = said.get("loss")
        measured = f", held-out loss {loss:.4f}" if isinstance(loss, float) else ""
        return f"Round {event.round} was committed: {said.get('in_sum')} in the sum{measured}."
    if event.name == "round.abandoned":
        return f"Round {event.round} was abandoned: {one_line(str(said.get('reason')))}."
    what = "held" if event.name == "volunteer.hold" else "banned"
    return f"A volunteer was {what}: entry {said.get('entry')} of the roster says who, and why."


def apprise(urls: Sequence[str]) -> Speak:
    """Speak to all of `urls`; UsageError if one is none of Apprise's, or it is not installed."""
    try:
        found: Any = importlib.import_module("apprise").Apprise()
    except ImportError:
        raise UsageError(WANTED) from None
    for number, url in enumerate(urls, 1):
        if not found.add(url):
            raise UsageError(f"watch.notify: address {number} is none that Apprise knows")
    return lambda title, body: bool(found.notify(title=title, body=body))


class Notices(NewsQueue):
    """Tells news of a community by `speak`. name: of the community, the notices' title."""

    def __init__(self, name: str, speak: Speak) -> None:
        super().__init__()
        self._name, self._speak = one_line(name), speak

    def tell(self, event: CommunityEvent, stop: threading.Event) -> None:
        """Tell one event, once: whoever speaks for us has tries of its own."""
        del stop
        try:
            if self._speak(self._name, sentence(event)):
                return
            why = "not all of its addresses took it"
        except Exception as problem:  # noqa: BLE001 - whatever a plugin of Apprise raises
            why = type(problem).__name__
        log.warning("a notice of %s was not delivered: %s", event.name, why)
