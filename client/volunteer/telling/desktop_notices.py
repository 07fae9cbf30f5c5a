"""Notices on the desktop, for owners who asked for them: only what needs a person, and only once.

    refused                  held, banned, or another version is spoken
    declined                 this machine takes no part in what is asked, and why
    data                     the rows were edited or are gone
    agree, accept-restore    nothing is trained before its owner has answered

They come from the process that takes part, whether a page is open or not (docs/adr/0029).
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from nomoat.aggregation.plain_text import one_line
from nomoat.client.volunteer.kit import Kit
from nomoat.client.volunteer.status import VolunteerStatus

AGAIN_S: Final = 6 * 3600.0  # before the same is told once more
MOST_WAITING: Final = 20
ASKING: Final = ("nomoat agree", "nomoat accept-restore")
WANTED: Final = "desktop_notices needs desktop-notifier: pip install desktop-notifier"

log = logging.getLogger(__name__)

Speak = Callable[[str, str], None]  # (title, sentence); never waits
Told = Callable[[VolunteerStatus], None]


def news(before: VolunteerStatus | None, after: VolunteerStatus) -> str | None:
    """Return what a person has to know of a change; None if nothing.

    before: None at the start, when what an earlier run has told is no news.
    """
    if before is None:
        return None
    if after.doing == "refused" and (before.doing, before.why) != (after.doing, after.why):
        return f"Refused: {after.why}"
    if after.doing == "waiting" and after.why != before.why and _asks(after.why):
        return after.why
    if after.complaint is not None and after.complaint != before.complaint:
        return f"This machine declined: {after.complaint}"
    if after.data is not None and after.data != before.data:
        return f"Your data has changed: {after.data}"
    return None


def _asks(why: str) -> bool:
    return any(command in why for command in ASKING)


@dataclass
class DesktopNotices:
    """Hands news of one community to `speak`. title: the community's name."""

    title: str
    speak: Speak
    clock: Callable[[], float] = time.monotonic
    _before: VolunteerStatus | None = field(default=None, init=False)
    _told: dict[str, float] = field(default_factory=dict, init=False)

    def status(self, status: VolunteerStatus) -> None:
        """Follow what this volunteer does."""
        said, self._before = news(self._before, status), status
        now = self.clock()
        if said is None or now - self._told.get(said, float("-inf")) < AGAIN_S:
            return
        self._told = {text: at for text, at in self._told.items() if now - at < AGAIN_S}
        self._told[said] = now
        self.speak(one_line(self.title), one_line(said))


def with_notices(kit: Kit, told: Told) -> Told:
    """Return what is given each status: `told`, and the desktop if this owner wants that."""
    if not kit.settings.desktop_notices:
        return told
    if not installed():
        log.warning(WANTED)
        return told
    notices = DesktopNotices(kit.folder.name(), desktop())

    def both(status: VolunteerStatus) -> None:
        told(status)
        notices.status(status)

    return both


def installed() -> bool:
    """Return True if what shows notices is installed here."""
    return importlib.util.find_spec("desktop_notifier") is not None


def desktop() -> Speak:
    """Return what shows a notice on this machine's desktop, from a thread of its own.

    A desktop that takes none costs a line in the log.
    """
    waiting: queue.Queue[tuple[str, str]] = queue.Queue(MOST_WAITING)
    threading.Thread(target=_show, args=(waiting,), name="notices", daemon=True).start()

    def speak(title: str, sentence: str) -> None:
        try:
            waiting.put_nowait((title, sentence))
        except queue.Full:
            log.warning("a notice was dropped: too many wait")

    return speak


def _show(waiting: queue.Queue[tuple[str, str]]) -> None:
    while True:
        title, sentence = waiting.get()
        try:
            asyncio.run(_send(title, sentence))
        except Exception as problem:  # noqa: BLE001 - whatever a desktop's service raises
            log.warning("the desktop took no notice: %s", type(problem).__name__)


async def _send(title: str, sentence: str) -> None:
    kit: Any = importlib.import_module("desktop_notifier")
    notifier = kit.DesktopNotifier(app_name="nomoat", app_icon=None)
    await notifier.request_authorisation()
    await notifier.send(title=title, message=sentence)
