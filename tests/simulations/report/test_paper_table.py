"""A comparison becomes a table that a paper takes as it is."""

from __future__ import annotations

import csv

import pytest

from nomoat.simulations.report.comparison import Line
from nomoat.simulations.report.paper_table import OURS, paper_table


def line(method: str, loss: float, **settings: object) -> Line:
    return Line(
        method, dict(settings), [1, 2, 3], 4.8, loss, 0.008, 4.8 - loss, 0.03, None, None, None,
        329_900.0, 922_100.0, 1.15, ["a", "b", "c"], [[4.8, loss]] * 3,
    )  # fmt: skip


LINES = [line("fedavg", 1.843, server_lr="50 %"), line("rolora", 1.9)]


def test_a_latex_table_has_as_many_cells_in_each_row_and_nothing_unescaped() -> None:
    rows = paper_table(LINES, ".tex").splitlines()
    assert rows[0].startswith(OURS[".tex"])
    cells = [row.count(" & ") for row in rows if row.endswith(r"\\")]
    assert len(cells) == 3
    assert len(set(cells)) == 1
    assert r"server\_lr 50 \%" in rows[5]
    assert r"1.843 $\pm$ 0.008" in rows[5]
    assert rows[-1] == r"\end{tabular}"


@pytest.mark.parametrize("suffix", OURS)
def test_columns_that_nobody_has_are_left_out_and_others_are_there(suffix: str) -> None:
    table = paper_table(LINES, suffix)
    assert "pooled" not in table
    assert table.index("fedavg") < table.index("rolora")
    assert table.startswith(OURS[suffix])


def test_a_csv_is_read_back_cell_by_cell() -> None:
    head, *rows = csv.reader(paper_table(LINES, ".csv").splitlines())
    assert dict(zip(head, rows[0], strict=True))["loss"] == "1.843 ± 0.008"
