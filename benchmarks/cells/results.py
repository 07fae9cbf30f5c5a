"""The results file, one JSON object per finished cell, and what is made of it over the seeds."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cells.plan import POOLED, RANKS, Cell, Setting
from cells.running import Row
from nomoat.aggregation.errors import UsageError
from nomoat.simulations.report.page import human_bytes
from nomoat.simulations.report.seed_statistics import (
    Losses,
    fall,
    mean,
    number,
    rounds_to,
    spread,
    with_spread,
)

Rows = dict[Cell, Row]


class ResultsFile:
    """Rows of finished cells; a line that an interruption tore off is dropped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.setting: Setting | None = None
        self.rows: Rows = {}
        if path.exists():
            self._read()

    def check(self, setting: Setting) -> None:
        """UsageError if the rows are of another setting."""
        if self.setting in (None, setting):
            return
        theirs, ours = (one.as_json() for one in (self.setting, setting) if one)
        name = next(name for name in ours if ours[name] != theirs[name])
        raise UsageError(
            f"{self.path} holds results with {name} {theirs[name]}, not {ours[name]}: choose "
            "another --out, or the settings it was begun with"
        )

    def add(self, setting: Setting, cell: Cell, row: Row) -> None:
        """Append one row, on disk before this returns."""
        line = json.dumps({"setting": setting.as_json(), "cell": asdict(cell), **row})
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.setting, self.rows[cell] = setting, row

    def _read(self) -> None:
        content = self.path.read_bytes()
        if torn := len(content) - (content.rfind(b"\n") + 1):
            os.truncate(self.path, len(content) - torn)
        for place, line in enumerate(content[: len(content) - torn].splitlines(), 1):
            try:
                row = json.loads(line)
                setting, cell = Setting(**row.pop("setting")), Cell(**row.pop("cell"))
            except (ValueError, TypeError, KeyError, AttributeError):
                raise UsageError(
                    f"{self.path}, line {place}: not a row of this benchmark"
                ) from None
            self.check(setting)
            self.setting, self.rows[cell] = setting, row


@dataclass(frozen=True)
class Line:
    """One method in one place, over its seeds. Losses are nats per token, bytes per volunteer and
    round, aggregate_s seconds per round.

    fall: of the loss since round 0. Spreads are sample standard deviations; that of the fall tells
    methods apart, since each seed holds out other rows. to_pooled: the loss over that of the better
    pooled training on as many rows, less one; gain_share: the fall over the pooled one's.
    rounds_to_95: mean number of rounds after which 95 % of the pooled gain was reached, None if a
    seed never did; the same for pooled training on one volunteer's rows. committed: share of the
    rounds.
    """

    split: str
    ranks: str
    method: str
    seeds: int
    impossible: str | None = None
    loss: float | None = None
    spread: float | None = None
    fall: float | None = None
    fall_spread: float | None = None
    to_pooled: float | None = None
    gain_share: float | None = None
    rounds_to_95: float | None = None
    rounds_to_95_of_one_volunteers_steps: float | None = None
    committed: float | None = None
    bytes_up: float | None = None
    bytes_down: float | None = None
    aggregate_s: float | None = None


def lines(rows: Rows) -> Iterator[Line]:
    """Every method in every place, the best first."""
    for split in dict.fromkeys(cell.split for cell in rows):
        for ranks in RANKS:
            here = {c: row for c, row in rows.items() if (c.split, c.ranks) == (split, ranks)}
            names = dict.fromkeys(cell.method for cell in here if cell.method != POOLED)
            found = [_line(split, ranks, name, here) for name in names]
            yield from sorted(found, key=lambda line: math.inf if line.loss is None else line.loss)


def markdown(rows: Rows) -> str:
    """The tables of docs/experiments.md."""
    text: list[str] = []
    place = ""
    for line in lines(rows):
        if (here := f"{line.split}/{line.ranks}") != place:
            place = here
            text += ["", *_head(line.split, line.ranks, rows)]
        text.append(_table_row(line))
    return "\n".join(text).strip()


def _line(split: str, ranks: str, method: str, here: Rows) -> Line:
    mine = {cell.seed: row for cell, row in here.items() if cell.method == method}
    refused = next((row["impossible"] for row in mine.values() if "impossible" in row), None)
    if refused is not None:
        return Line(split, ranks, method, len(mine), refused)
    pooled = {cell.seed: row for cell, row in here.items() if cell.method == POOLED}
    finals = [row["losses"][-1] for row in mine.values()]
    falls = [fall(row["losses"]) for row in mine.values()]
    pairs = [(row["losses"], pooled[seed]) for seed, row in mine.items() if seed in pooled]
    return Line(
        split,
        ranks,
        method,
        len(mine),
        None,
        mean(finals),
        spread(finals),
        mean(falls),
        spread(falls),
        mean([losses[-1] / row["equal_tokens"] - 1 for losses, row in pairs if losses[-1]]),
        mean([_share(losses, row["equal_tokens"]) for losses, row in pairs]),
        _all([rounds_to(losses, row["equal_tokens"], 0.95) for losses, row in pairs]),
        _all([rounds_to(losses, row["one_volunteer"], 0.95) for losses, row in pairs]),
        mean([row["committed"] / (len(row["losses"]) - 1) for row in mine.values()]),
        mean([row["bytes_up"] for row in mine.values()]),
        mean([row["bytes_down"] for row in mine.values()]),
        mean([row["aggregate_s"] for row in mine.values()]),
    )


def _head(split: str, ranks: str, rows: Rows) -> list[str]:
    here = {c: row for c, row in rows.items() if (c.split, c.ranks) == (split, ranks)}
    base = [row["losses"][0] for row in here.values() if "losses" in row]
    pooled = [row for cell, row in here.items() if cell.method == POOLED]
    seeds = len({cell.seed for cell in here})
    said = f"{split}, ranks {RANKS[ranks] or 'equal'}, {seeds} seed{'s' * (seeds > 1)}"
    return [
        f"**{said}.** Base model {number(mean(base))}; all data in one place "
        f"{number(mean([row['many_steps'] for row in pooled]))} with everyone's steps, "
        f"{number(mean([row['large_batches'] for row in pooled]))} with everyone's batches, "
        f"{number(mean([row['one_volunteer'] for row in pooled]))} with one volunteer's of both.",
        "",
        "| method | held-out loss | fall | to pooled | of its gain | rounds to 95 % | up | down | "
        "aggregation, s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]


def _table_row(line: Line) -> str:
    if line.impossible is not None:
        return f"| {line.method} | cannot | | | | | | | |"
    distance = "–" if line.to_pooled is None else f"{100 * line.to_pooled:+.1f} %"
    share = "–" if line.gain_share is None else f"{100 * line.gain_share:.0f} %"
    rounds = "–" if line.rounds_to_95 is None else f"{line.rounds_to_95:.1f}"
    return (
        f"| {line.method} | {with_spread(line.loss, line.spread)} | "
        f"{with_spread(line.fall, line.fall_spread)} | {distance} | {share} | {rounds} | "
        f"{human_bytes(line.bytes_up or 0)} | {human_bytes(line.bytes_down or 0)} | "
        f"{number(line.aggregate_s)} |"
    )


def summary(rows: Rows) -> Mapping[str, Any]:
    """The object of --json."""
    return {
        "cells": [asdict(line) for line in lines(rows)],
        "seconds": round(sum(row.get("seconds", 0.0) for row in rows.values()), 1),
    }


def _share(losses: Losses, pooled: float) -> float | None:
    base, gained = losses[0], fall(losses)
    if base is None or gained is None or pooled >= base:
        return None
    return gained / (base - pooled)


def _all(values: Sequence[int | None]) -> float | None:
    return None if None in values else mean(values)
