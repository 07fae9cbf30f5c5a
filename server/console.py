"""The lines of `nomoat up` while it runs: a line per round, or one JSON object per round."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from nomoat.server.rounds.records import RoundRecord
from nomoat.server.rounds.watching import WAITING, RoundProgress

ENDS = ("committed", "abandoned")
AGAIN_S = 5.0  # between two lines about one phase


@dataclass
class ConsoleLines:
    """Rounds on stdout (JSON) or stderr (for people)."""

    as_json: bool
    quiet: bool
    clock: Callable[[], float] = time.monotonic
    _last: RoundProgress | None = field(default=None, init=False)
    _said_at: float = field(default=0.0, init=False)

    def progress(self, progress: RoundProgress) -> None:
        """Say what phase a round is in, and how many of those asked have answered, now and then."""
        if self.quiet or self.as_json or progress == self._last or not self._is_news(progress):
            return
        counts = f" ({progress.answered}/{progress.asked})" if progress.asked else ""
        sys.stderr.write(f"round {progress.round}: {progress.phase}{counts}\n")
        self._last, self._said_at = progress, self.clock()

    def _is_news(self, progress: RoundProgress) -> bool:
        """Tell a new phase, who comes before a round, and else what has moved for a while.

        How a round ended has a line of its own.
        """
        if progress.phase in ENDS:
            return False
        last = self._last
        if last is None or (last.round, last.phase) != (progress.round, progress.phase):
            return True
        return progress.phase == WAITING or self.clock() - self._said_at >= AGAIN_S

    def ended(self, record: RoundRecord) -> None:
        """Say how a round ended."""
        if self.as_json:
            sys.stdout.write(json.dumps(record.as_json()) + "\n")
            sys.stdout.flush()
        elif not self.quiet:
            loss = "" if record.loss is None else f", held-out loss {record.loss:.4f}"
            if record.evaluation is not None:
                loss += f", on the evaluation split {record.evaluation:.4f}"
            if record.personal_loss is not None:
                loss += f", with own parts {record.personal_loss:.4f}"
            end = "committed" if record.committed else "abandoned"
            loss += f"; {record.session}" if record.contributors and record.session else ""
            sys.stderr.write(
                f"round {record.round}: {end} ({record.reason}), "
                f"{len(record.contributors)} of {len(record.cohort)}{loss}\n"
            )
            for name, reason in record.held.items():
                sys.stderr.write(f"{name} is held: {reason}; see: nomoat volunteers\n")
