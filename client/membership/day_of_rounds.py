"""How many rounds this machine has begun to train within a day: rounds.json, in its folder."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nomoat.storage.private import write_private

DAY_S = 86_400.0
FILE = "rounds.json"


@dataclass(frozen=True)
class DayOfRounds:
    """Counts trainings by round, over the last 24 hours of this machine's clock."""

    folder: Path
    most: int
    clock: Callable[[], float] = time.time

    def begin(self, number: int) -> str | None:
        """Count round `number` in; what forbids it in words for the owner, None if nothing does.

        A round that is gone on with, after a restart say, counts once.
        """
        now = self.clock()
        begun = {n: at for n, at in self._begun().items() if now - DAY_S < at <= now}
        if number in begun:
            return None
        if len(begun) >= self.most:
            at = time.strftime("%H:%M", time.localtime(min(begun.values()) + DAY_S))
            return (
                f"{len(begun)} rounds were trained within a day, which is what was agreed to on "
                f"joining; the next may be at {at}"
            )
        content = json.dumps({str(n): at for n, at in {**begun, number: now}.items()})
        write_private(self.folder / FILE, content.encode())
        return None

    def _begun(self) -> dict[int, float]:
        try:
            rows = json.loads((self.folder / FILE).read_bytes())
            return {int(number): float(at) for number, at in rows.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}
