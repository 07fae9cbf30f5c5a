"""Files people already have → conversations, in whichever layout they are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nomoat.aggregation.errors import BadData
from nomoat.lora.data import normal_form
from nomoat.lora.data.conversations import (
    MAX_ROW_CHARACTERS,
    ChatTurn,
    Conversation,
    Dataset,
    FileRows,
    Tally,
    printable,
)
from nomoat.lora.data.files.listing import Unread, find, shown
from nomoat.lora.data.files.rows import DataRow, rows_of
from nomoat.lora.data.layouts.columns import KNOWN, ColumnLayout, layout_of
from nomoat.lora.data.layouts.marks import check_row, row_is_left_out
from nomoat.lora.data.layouts.tools import UnusableRow
from nomoat.lora.data.layouts.turns import ATTACHED, is_missing

NORMAL_FORM = "messages"  # the layout of what `write_jsonl` wrote


def read(path: Path) -> Dataset:
    """Read a file, or every data file below a folder, in whichever layout it is.

    Rows without anything to learn from are dropped and counted. Raises BadData with file and
    line for what is malformed, and if nothing is left.
    """
    listing, reading = find(path), _Reading()
    files, unread = list[FileRows](), list(listing.unread)
    for file in listing.files:
        before = reading.rows
        for row in rows_of(file, KNOWN):
            reading.add(row)
        if reading.rows > before:
            files.append(FileRows(file.shown, reading.rows - before))
        elif path.is_dir() or file.member:
            unread.append(Unread(file.shown, "has no rows"))
        else:
            raise BadData(f"{file.shown} is empty: it has no rows")
    if not reading.kept:
        dropped = reading.dropped.dropped()
        reasons = "; ".join(f"{d.reason} ({d.count}, {d.first})" for d in dropped)
        raise BadData(f"{shown(path)} holds no usable row: {reasons or 'it is empty'}")
    return reading.dataset(tuple(files), tuple(unread))


@dataclass(slots=True)
class _Reading:
    """Rows on their way: kept, or counted with the reason."""

    rows: int = 0
    kept: list[Conversation] = field(default_factory=list)
    dropped: Tally = field(default_factory=Tally)
    ignored: Tally = field(default_factory=Tally)
    layouts: dict[str, None] = field(default_factory=dict)

    def add(self, row: DataRow) -> None:
        """Read one row."""
        self.rows += 1
        if normal_form.is_normal(row.values):
            self.layouts[NORMAL_FORM] = None
            self.kept.append(normal_form.conversation(row.values, row.origin))
            return
        layout = layout_of(row)
        self.layouts[layout.name] = None
        try:
            conversation, notes = _conversation(row, layout)
        except UnusableRow as reason:
            self.dropped.add(str(reason), row.origin)
            return
        self.kept.append(conversation)
        for note in notes:
            self.ignored.add(note, row.origin)

    def dataset(self, files: tuple[FileRows, ...], unread: tuple[Unread, ...]) -> Dataset:
        """Everything that was read."""
        dropped, ignored = self.dropped.dropped(), self.ignored.dropped()
        layouts = " | ".join(self.layouts)
        return Dataset(tuple(self.kept), dropped, layouts, ignored, files, unread)


def _conversation(row: DataRow, layout: ColumnLayout) -> tuple[Conversation, Iterable[str]]:
    if not layout.fits(row):
        raise UnusableRow("is empty")
    if row_is_left_out(row.values):
        raise UnusableRow("is marked as not to be trained on")
    used = layout.columns
    check_row(row.values, used, "text" not in layout.needs, row.origin)
    for name in ATTACHED:
        if isinstance(row.values.get(name), list | dict) and row.values[name]:
            raise UnusableRow(f"has {name}, which cannot be read")
    read = layout.turns(row, layout)
    turns = _said(read.turns, row.origin)
    others = (name for name in row.values if name in KNOWN - used and _filled(row.values[name]))
    notes = [f"column {name} is not used by the layout {layout.name}" for name in others]
    fields = _fields(row, used)
    return Conversation(turns, fields, row.origin, read.tools), (*dict.fromkeys(read.notes), *notes)


def _said(turns: Iterable[ChatTurn], origin: str) -> tuple[ChatTurn, ...]:
    """The turns without system turns that say nothing; silent replies are not trained on.

    UnusableRow if nothing is left to train on.
    """
    turns = [
        replace(turn, trained=False) if turn.role == "assistant" and turn.silent else turn
        for turn in turns
        if not (turn.role == "system" and turn.silent)
    ]
    if all(turn.silent for turn in turns):
        raise UnusableRow("is empty")
    if not any(turn.learnt and not turn.silent for turn in turns):
        marked = any(turn.role == "assistant" and not turn.silent for turn in turns)
        raise UnusableRow(
            "has no reply to learn from" + (": none is marked to be trained on" if marked else "")
        )
    if any(turn.role == "text" for turn in turns) and len(turns) > 1:
        raise BadData(f"{origin}: a turn of the role text stands alone in its row")
    if sum(len(turn.text) + len(turn.thought) for turn in turns) > MAX_ROW_CHARACTERS:
        raise BadData(f"{origin}: the row is longer than {MAX_ROW_CHARACTERS >> 20} MiB")
    return tuple(turns)


def _filled(value: Any) -> bool:
    return not is_missing(value) and value not in ("", [], {})


def _fields(row: DataRow, used: frozenset[str]) -> dict[str, str]:
    return {
        printable(str(name)): printable(str(value))
        for name, value in row.values.items()
        if name not in used and isinstance(value, str | int | float) and not is_missing(value)
    }
