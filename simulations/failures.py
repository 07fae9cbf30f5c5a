"""Reasons for which simulated volunteers could not do a round's work.

A volunteer tells a coordinator no more than "work failed"; here both are the researcher's, and the
reason belongs in the record of the round.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from nomoat.client.round.observer import RoundObserver
from nomoat.client.round.work import Reason, Work
from nomoat.server.rounds.federation import FederationCheckpoint
from nomoat.server.rounds.records import Journal, RoundRecord

MARK = f"{Reason.FAILED.value}: "


class FailureNotes:
    """The reasons of the round under way, by volunteer."""

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}

    def observer(self, name: str) -> RoundObserver:
        """Return what is to be told of the volunteer's work."""
        return _Observer(name, self._reasons)

    def explain(self, record: RoundRecord) -> RoundRecord:
        """Return the record of a round with the reasons, which are then forgotten."""
        dropped = {
            name: MARK + self._reasons[name]
            if why == Reason.FAILED.value and name in self._reasons
            else why
            for name, why in record.dropped.items()
        }
        self._reasons.clear()
        return replace(record, dropped=dropped)


class _Observer(RoundObserver):
    def __init__(self, name: str, reasons: dict[str, str]) -> None:
        self._name, self._reasons = name, reasons

    def failed(self, work: Work, problem: str) -> None:
        """Note why; of several reasons in one round the last."""
        del work
        self._reasons[self._name] = problem


@dataclass(frozen=True)
class ExplainingJournal:
    """A journal whose records say why work failed."""

    journal: Journal
    notes: FailureNotes

    def last(self) -> FederationCheckpoint | None:
        """Return where to go on from."""
        return self.journal.last()

    def history(self) -> Iterable[RoundRecord]:
        """Return the records of all rounds that were written."""
        return self.journal.history()

    def write(self, record: RoundRecord, checkpoint: FederationCheckpoint) -> None:
        """Write one ended round."""
        self.journal.write(self.notes.explain(record), checkpoint)


def failures(records: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the reasons for which work failed, each once, and for each the volunteers it hit."""
    found: dict[str, list[str]] = {}
    for record in records:
        for name, why in sorted(record["dropped"].items()):
            if why.startswith(MARK) and name not in (hit := found.setdefault(why[len(MARK) :], [])):
                hit.append(name)
    return found


def failure_lines(records: Iterable[Mapping[str, Any]], most: int = 3) -> list[str]:
    """Tell why work failed, a line for each reason."""
    lines = []
    for why, names in failures(records).items():
        further = f" and {len(names) - most} more" if len(names) > most else ""
        lines.append(f"{', '.join(names[:most])}{further}: {why}")
    return lines
