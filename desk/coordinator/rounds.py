"""Rounds as the coordinator wrote them down, and the one that is under way."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from nomoat.desk.pages.charts import ChartLine, ChartPoint
from nomoat.server.community.folder import Folder

SILENT_S: Final = 12.0  # a coordinator that is up writes its state more often than that
SHOWN: Final = 100  # rounds in the list; charts have as many points
PHASES: Final = ("training", "aggregating", "evaluating")


@dataclass(frozen=True)
class LeftOutVolunteer:
    """A volunteer that is not in a round's sum, and why."""

    name: str
    why: str


@dataclass(frozen=True)
class AskedVolunteer:
    """A volunteer that a round asked, and how far it came. why: where it was late or refused."""

    name: str
    ready: bool
    summed: bool
    end: str
    why: str


@dataclass(frozen=True)
class PhaseSpan:
    """One phase of a round: its seconds, and its place among them all in a bar of 100."""

    name: str
    seconds: float
    begin: float
    share: float


@dataclass(frozen=True)
class RoundView:
    """An ended round. ready: how many trained to the end. spread: least and most of the losses.

    misfits: whose loss of the candidate neither the split nor the others bear out.
    """

    number: int
    committed: bool
    reason: str
    asked: int
    ready: int
    summed: int
    late: tuple[LeftOutVolunteer, ...]
    refused: tuple[LeftOutVolunteer, ...]
    loss: float | None
    spread: tuple[float, float] | None
    evaluation: float | None
    session: str
    tokens: int
    bytes_up: int
    bytes_down: int
    seconds: float
    phases: tuple[PhaseSpan, ...]
    people: tuple[AskedVolunteer, ...]
    misfits: tuple[str, ...]


@dataclass(frozen=True)
class PresentRound:
    """The round under way by state.json, as it was written at unix time `at`.

    seconds: of each of its phases so far, that under way among them.
    """

    number: int
    phase: str
    answered: int
    asked: int
    at: float
    seconds: Mapping[str, float]


def present(folder: Folder, now: float) -> PresentRound | None:
    """Read state.json; None if there is none that can be read. now: unix time."""
    try:
        state = json.loads((folder.root / "state.json").read_text())
        return PresentRound(
            int(state["round"]),
            str(state["phase"]),
            int(state["answered"]),
            int(state["asked"]),
            float(state["at"]),
            _seconds(state.get("begun", ()), min(now, float(state["at"]) + SILENT_S)),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _seconds(begun: Sequence[Sequence[Any]], now: float) -> dict[str, float]:
    """Seconds of each phase, up to now; a phase that came again has them all."""
    ends = [float(at) for _, at in begun[1:]] + [now]
    found: dict[str, float] = {}
    for (name, at), end in zip(begun, ends, strict=True):
        found[str(name)] = found.get(str(name), 0.0) + max(0.0, end - float(at))
    return found


def round_view(record: Mapping[str, Any]) -> RoundView:
    """One round's record (server/rounds/records.py) as it is shown."""
    losses = sorted(record["losses"].values())
    return RoundView(
        record["round"],
        record["committed"],
        record["reason"],
        len(record["cohort"]),
        len(_trained(record)),
        len(record["contributors"]),
        _left_out(record["dropped"]),
        _left_out(record["refused"]),
        record["loss"],
        (losses[0], losses[-1]) if losses else None,
        record["evaluation"],
        record["session"],
        record["tokens"],
        record["bytes_up"],
        record["bytes_down"],
        sum(record["seconds"].values()),
        _phases(record["seconds"]),
        _people(record),
        tuple(record.get("misfits", ())),
    )


def _left_out(reasons: Mapping[str, str]) -> tuple[LeftOutVolunteer, ...]:
    return tuple(LeftOutVolunteer(name, why) for name, why in sorted(reasons.items()))


def _people(record: Mapping[str, Any]) -> tuple[AskedVolunteer, ...]:
    """Everyone a record names, those who are not in the sum first."""
    trained = _trained(record)
    names = {*record["cohort"], *record["dropped"], *record["refused"], *record["contributors"]}
    found = [
        AskedVolunteer(
            name,
            name in trained,
            name in record["contributors"],
            _end(record, name),
            record["refused"].get(name) or record["dropped"].get(name, ""),
        )
        for name in sorted(names)
    ]
    return tuple(sorted(found, key=lambda each: each.summed))


def _end(record: Mapping[str, Any], name: str) -> str:
    if name in record["contributors"]:
        return "in the sum"
    if name in record["refused"]:
        return "refused"
    return "late or gone" if name in record["dropped"] else "not in the sum"


def _trained(record: Mapping[str, Any]) -> set[str]:
    """Those who trained to the end: a round that was abandoned notes only whom it summed."""
    return {*record["train_seconds"], *record["train_loss"], *record["contributors"]}


def _phases(seconds: Mapping[str, float]) -> tuple[PhaseSpan, ...]:
    whole, begin, found = sum(seconds.values()), 0.0, []
    for name, spent in seconds.items():
        share = 100 * spent / whole if whole else 0.0
        found.append(PhaseSpan(name, spent, begin, share))
        begin += share
    return tuple(found)


def loss_lines(rounds: Sequence[RoundView]) -> tuple[ChartLine, ...]:
    """Held-out loss of what stood after each round, its spread over volunteers, and the split's."""
    kept = [each for each in rounds if each.committed][-SHOWN:]
    macro = tuple(
        ChartPoint(each.number, each.loss, *(each.spread or (None, None)))
        for each in kept
        if each.loss is not None
    )
    split = tuple(
        ChartPoint(each.number, each.evaluation) for each in kept if each.evaluation is not None
    )
    return (
        ChartLine("mean of volunteers, from best to worst", macro, 0),
        ChartLine("the community's own rows", split, 1),
    )


def participation_lines(rounds: Sequence[RoundView]) -> tuple[ChartLine, ...]:
    """Counts of those asked, those who trained to the end, those in the sum."""
    kept = [each for each in rounds if each.number > 0][-SHOWN:]
    counted = (
        ("asked", [each.asked for each in kept]),
        ("ready", [each.ready for each in kept]),
        ("in the sum", [each.summed for each in kept]),
    )
    return tuple(
        ChartLine(
            name,
            tuple(ChartPoint(x.number, y) for x, y in zip(kept, values, strict=True)),
            kind,
        )
        for kind, (name, values) in enumerate(counted)
    )


def seconds_lines(rounds: Sequence[RoundView]) -> tuple[ChartLine, ...]:
    """Seconds of each phase of each round."""
    kept = [each for each in rounds if each.number > 0][-SHOWN:]
    lines = []
    for kind, phase in enumerate(PHASES):
        points = tuple(
            ChartPoint(each.number, sum(span.seconds for span in each.phases if span.name == phase))
            for each in kept
            if any(span.name == phase for span in each.phases)
        )
        lines.append(ChartLine(phase, points, kind))
    return tuple(lines)


@dataclass(frozen=True)
class RoundTotals:
    """Sums over all rounds; seconds: the median of a round."""

    ended: int
    committed: int
    bytes_up: int
    bytes_down: int
    seconds: float | None


def totals(rounds: Sequence[RoundView]) -> RoundTotals:
    """Add up the rounds in which something was trained."""
    trained = [each for each in rounds if each.number > 0]
    spent = [each.seconds for each in trained if each.seconds]
    return RoundTotals(
        len(trained),
        sum(each.committed for each in trained),
        sum(each.bytes_up for each in rounds),
        sum(each.bytes_down for each in rounds),
        statistics.median(spent) if spent else None,
    )
