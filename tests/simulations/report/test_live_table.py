"""The terminal shows each round once and measures it against the base."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from nomoat.server.rounds.records import RoundRecord
from nomoat.server.rounds.watching import RoundProgress
from nomoat.simulations.report.live_table import SHOWN_ROUNDS, LiveTable


def record(number: int, loss: float | None, committed: bool = True) -> RoundRecord:
    names = ("ada", "bob")
    contributors = names if committed else ()
    return RoundRecord(number, committed, "1 of [2] ready", names, contributors, loss=loss)


def lines_of(records: list[RoundRecord], base: float | None = None) -> list[str]:
    text = io.StringIO()
    with LiveTable(Console(file=text, width=120), 3, base) as table:
        for found in records:
            table.progress(RoundProgress(found.round, "training", 1, 2))
            table.ended(found)
    return text.getvalue().splitlines()


def test_outside_a_terminal_each_round_is_one_line() -> None:
    lines = lines_of([record(0, 4.0), record(1, 3.0), record(2, 3.0, False), record(3, None)])
    assert lines == [
        "round 0 · held-out loss 4.0000 · before training",
        "round 1 · held-out loss 3.0000 · -25.0% · 2/2",
        "round 2 · held-out loss 3.0000 · -25.0% · 0/2 · abandoned: 1 of [2] ready",
        "round 3 · held-out loss – · 2/2",
    ]


def test_a_resumed_run_is_still_measured_against_the_base() -> None:
    assert lines_of([record(2, 3.0)], base=4.0) == ["round 2 · held-out loss 3.0000 · -25.0% · 2/2"]


@pytest.mark.parametrize("shown", [0, 1, 2, 30])
def test_on_a_terminal_the_table_draws_at_every_stage(shown: int) -> None:
    text = io.StringIO()
    console = Console(file=text, width=120, force_terminal=True)
    with LiveTable(console, 30) as table:
        for number in range(shown):
            table.progress(RoundProgress(number, "training", 1, 2))
            table.ended(record(number, 4.0 - number / 10))
        drawn = console.capture()
        with drawn:
            console.print(table._table())
    assert ("before training" in drawn.get()) is (0 < shown <= SHOWN_ROUNDS)
    assert drawn.get().count("2/2") == min(max(0, shown - 1), SHOWN_ROUNDS)


def test_losses_with_what_stays_at_home_stand_beside_the_communitys() -> None:
    found = replace(record(1, 3.0), personal_loss=2.5)
    assert lines_of([found], base=4.0) == [
        "round 1 · held-out loss 3.0000 · -25.0% · 2/2 · with own parts 2.5000"
    ]
