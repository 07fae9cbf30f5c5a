"""A comparison as a table for a paper: LaTeX (booktabs), Markdown or CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Final

from nomoat.simulations.report.comparison import CAPTION, HEADINGS, LEFT, Line, cells

OURS: Final = {".tex": "% nomoat compare", ".md": "<!-- nomoat compare", ".csv": "method,"}
TEX: Final = {c: f"\\{c}" for c in "&%#_{}$"} | {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "±": r"$\pm$",
    "–": "--",
}


def paper_table(lines: Sequence[Line], suffix: str) -> str:
    """Write the lines as a table, without columns that nobody has. suffix: a key of OURS."""
    rows = [cells(line) for line in lines]
    shown = [i for i in range(len(HEADINGS)) if any(row[i] != "–" for row in rows)]
    table = [[HEADINGS[i] for i in shown], *([row[i] for i in shown] for row in rows)]
    texts = sum(i < LEFT for i in shown)
    if suffix == ".tex":
        return _tex(table, texts)
    if suffix == ".md":
        rule = [":---"] * texts + ["---:"] * (len(shown) - texts)
        drawn = [f"| {' | '.join(row)} |" for row in (table[0], rule, *table[1:])]
        return "\n".join([f"{OURS[suffix]}: {CAPTION} -->", *drawn, ""])
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(table)
    return file.getvalue()


def _tex(table: Sequence[Sequence[str]], texts: int) -> str:
    columns = "l" * texts + "r" * (len(table[0]) - texts)
    head, *body = (" & ".join(_escaped(cell) for cell in row) + r" \\" for row in table)
    return "\n".join(
        [
            f"{OURS['.tex']}: {CAPTION}; needs booktabs",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            head,
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def _escaped(text: str) -> str:
    return "".join(TEX.get(character, character) for character in text)
