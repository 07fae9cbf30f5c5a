"""The lines of `nomoat up` while it runs: a line per round, or one JSON object per round."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field

from nomoat.server.rounds.records import RoundRecord
from nomoat.server.rounds.watching import RoundProgress


@dataclass
class ConsoleLines:
    """Rounds on stdout (JSON) or stderr (for people)."""

    as_json: bool
    quiet: bool
    _last: tuple[int, str] = field(default=(-1, ""), init=False)

    def progress(self, progress: RoundProgress) -> None:
        """Say what phase a round is in, once."""
        phase = (progress.round, progress.phase)
        if not (self.quiet or self.as_json or phase == self._last):
            sys.stderr.write(
                f"round {progress.round}: {progress.phase} ({progress.answered}/{progress.asked})\n"
            )
        self._last = phase

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
