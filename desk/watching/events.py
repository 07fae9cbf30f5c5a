"""Events of a community: frozen, one line of JSON each, with the round and phase they are of."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from nomoat.aggregation.protocol import roster
from nomoat.server.rounds.records import RoundRecord

Said = str | int | float | bool | None
NEWS: Final = frozenset({"round.committed", "round.abandoned", "volunteer.hold", "volunteer.ban"})


@dataclass(frozen=True, slots=True)
class CommunityEvent:
    """Something that happened. at: unix seconds. name: as in `round.committed`."""

    at: float
    name: str
    round: int | None = None
    phase: str | None = None
    fields: Mapping[str, Said] = field(default_factory=dict)

    def line(self) -> bytes:
        """One line of JSON: at, event, round and phase if there are any, then its fields."""
        values: dict[str, Any] = {"at": round(self.at, 3), "event": self.name}
        if self.round is not None:
            values["round"] = self.round
        if self.phase is not None:
            values["phase"] = self.phase
        return json.dumps(values | dict(self.fields)).encode() + b"\n"


Sink = Callable[[CommunityEvent], None]


def read_line(line: str) -> CommunityEvent | None:
    """Read what `line` wrote; None for anything else, such as a line that was cut off."""
    try:
        values = json.loads(line)
        at, name = float(values.pop("at")), str(values.pop("event"))
        number, phase = values.pop("round", None), values.pop("phase", None)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return CommunityEvent(at, name, number, phase, values)


def of_round(record: RoundRecord, at: float) -> CommunityEvent:
    """A round's end. Counts alone: names stay in the community's database."""
    fields: dict[str, Said] = {
        "reason": record.reason,
        "asked": len(record.cohort),
        "in_sum": len(record.contributors),
        "late": len(record.dropped),
        "refused": len(record.refused),
        "loss": record.loss,
        "evaluation": record.evaluation,
        "bytes_up": record.bytes_up,
        "bytes_down": record.bytes_down,
        "seconds": round(sum(record.seconds.values()), 3),
        "session": record.session,
        "adapter": record.adapter,
    }
    phase = "committed" if record.committed else "abandoned"
    return CommunityEvent(at, f"round.{phase}", record.round, phase, fields)


def of_phase(number: int, phase: str, at: float) -> CommunityEvent:
    """A round has come to another phase."""
    return CommunityEvent(at, "round.phase", number, phase)


def of_roster(entry: roster.SignedEntry) -> CommunityEvent:
    """Something was decided about a volunteer: the roster's entry says about whom, and why.

    No name and no reason leaves the roster: what is written here cannot be erased one by one.
    """
    said = entry.entry
    fields: dict[str, Said] = {"entry": said.index}
    return CommunityEvent(said.at, f"volunteer.{said.event}", None, None, fields)
