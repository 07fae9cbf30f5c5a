"""The log of events: log/events.jsonl in a community's folder, four files at most."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Final

from nomoat.desk.watching.events import CommunityEvent, read_line
from nomoat.server.community.folder import Folder

FILES: Final = 3  # beside the one that is written to

log = logging.getLogger(__name__)


def path_of(folder: Folder) -> Path:
    """The newest file of the log."""
    return folder.root / "log" / "events.jsonl"


class EventLog:
    """Appends events. A full disk costs lines and a warning, never a round."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = _Lines(
            path, maxBytes=max_bytes, backupCount=FILES, encoding="utf-8", delay=True
        )
        self._file.setFormatter(logging.Formatter("%(message)s"))

    def __call__(self, event: CommunityEvent) -> None:
        """Write an event's line."""
        line = event.line().decode().rstrip("\n")
        self._file.handle(logging.makeLogRecord({"msg": line, "levelno": logging.INFO}))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class _Lines(RotatingFileHandler):
    failing = False

    def handleError(self, record: logging.LogRecord) -> None:
        """Warn once, instead of writing a traceback for each line."""
        del record
        if not self.failing:
            log.warning("%s cannot be written", self.baseFilename)
        self.failing = True


@dataclass(frozen=True)
class EventSearch:
    """A search: by the beginning of an event's name, its round, a text in its line."""

    name: str = ""
    round: str = ""
    text: str = ""

    def admits(self, event: CommunityEvent, line: str) -> bool:
        """Return True if this event is looked for."""
        same = not self.round.strip() or str(event.round) == self.round.strip()
        return (
            same
            and event.name.startswith(self.name)
            and self.text.strip().casefold() in line.casefold()
        )


def search(path: Path, wanted: EventSearch, most: int) -> list[CommunityEvent]:
    """Return the newest events that are looked for, newest first."""
    found: deque[CommunityEvent] = deque(maxlen=most)
    for line in _lines(path):
        event = read_line(line)
        if event is not None and wanted.admits(event, line):
            found.append(event)
    return list(reversed(found))


def _lines(path: Path) -> Iterator[str]:
    """Every line, the oldest file first."""
    for number in range(FILES, -1, -1):
        file = path if number == 0 else path.with_name(f"{path.name}.{number}")
        try:
            with file.open(encoding="utf-8", errors="replace") as lines:
                yield from lines
        except OSError:
            continue
