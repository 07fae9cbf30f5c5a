"""The last lines of what `nomoat run` wrote down."""

from __future__ import annotations

from collections import deque

from nomoat.client.home import CommunityFolder

SHOWN = 200


def last_lines(folder: CommunityFolder, shown: int = SHOWN) -> str:
    """Return the end of the log, empty if there is none yet."""
    try:
        with folder.log.open(encoding="utf-8", errors="replace") as file:
            return "".join(deque(file, shown))
    except OSError:
        return ""
