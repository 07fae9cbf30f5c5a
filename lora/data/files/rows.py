"""Data files → rows: JSON Lines, JSON, CSV and plain text, each row with its origin.

What people own is rarely clean: every refusal names the file and the line.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from nomoat.aggregation.errors import BadData
from nomoat.lora.data.files import streams
from nomoat.lora.data.files.listing import DataFile
from nomoat.lora.data.files.tables import table_rows

BLANK = " \t\r\n\ufeff"
TABLES = frozenset({".parquet", ".pq", ".arrow", ".feather", ".ipc"})


@dataclass(frozen=True, slots=True)
class DataRow:
    """One record of a data file; `origin` is "file:line" (JSON, tables: "file:row"), from 1."""

    values: Mapping[str, Any]
    origin: str


def rows_of(file: DataFile, known: Collection[str] = ()) -> Iterator[DataRow]:
    """Read a file's rows; BadData for whatever cannot be read.

    known: columns that a table must give whatever their type; others only where they are plain.
    """
    if file.kind in TABLES:
        for number, values in enumerate(table_rows(file, known), 1):
            yield DataRow(values, f"{file.shown}:{number}")
    else:
        yield from TEXT_READERS[file.kind](file)


class _Twice(Exception):
    """A key stands twice in one JSON object; the message is the key."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        raise _Twice(next(key for key in keys if keys.count(key) > 1))
    return found


def _constant(name: str) -> float | None:
    return None if name == "NaN" else float(name)  # what pandas writes for a missing cell


DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant)


def _value(text: str, start: int, origin: str) -> tuple[Any, int]:
    """(the JSON value at `start`, one past its end)."""
    try:
        return DECODER.raw_decode(text, start)
    except json.JSONDecodeError as problem:
        column = f"column {problem.colno}"
        place = column if "\n" not in text else f"line {problem.lineno}, {column}"
        raise BadData(f"{origin}: not valid JSON: {problem.msg} ({place})") from None
    except _Twice as twice:
        key = str(twice)[:40]
        raise BadData(f"{origin}: the key {key!r} stands twice in one object") from None
    except (ValueError, RecursionError) as problem:  # 5 000-digit numbers, 100 000 brackets
        reason = "nested too deeply" if isinstance(problem, RecursionError) else str(problem)
        raise BadData(f"{origin}: not usable JSON: {reason[:80]}") from None


def _record(value: Any, origin: str) -> DataRow:
    if _is_chat(value):
        value = {"messages": value}
    if not isinstance(value, dict):
        kind = type(value).__name__
        raise BadData(f"{origin}: a row must be an object of named columns, this is a {kind}")
    return DataRow(value, origin)


def _is_chat(value: Any) -> bool:
    """Tell one conversation's turns from a list of rows."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(
            isinstance(turn, dict)
            and ({"role", "content"} <= turn.keys() or {"from", "value"} <= turn.keys())
            for turn in value
        )
    )


def _json_lines(file: DataFile) -> Iterator[DataRow]:
    first = True
    for number, line in streams.lines(file):
        text = line.strip(BLANK)
        if not text:
            continue
        if first and (text[0] == "[" or text == "{"):  # a document under the wrong name
            yield from _json_document(file)
            return
        first, origin = False, f"{file.shown}:{number}"
        value, end = _value(text, 0, origin)
        if rest := text[end:].strip(BLANK):
            raise BadData(f"{origin}: not valid JSON: {rest[:20]!r} stands behind the row")
        yield _record(value, origin)


def _json_document(file: DataFile) -> Iterator[DataRow]:
    """Read one JSON value with all rows, or values one after the other (JSON Lines)."""
    text = streams.document(file)
    start, line = 0, 1
    while (begins := _skip_blanks(text, start)) < len(text):
        line += text.count("\n", start, begins)
        origin = f"{file.shown}:{line}"
        value, end = _value(text, begins, file.shown if file.kind == ".json" else origin)
        if start == 0 and _skip_blanks(text, end) == len(text):
            for number, row in enumerate(_rows_in(value, file), 1):
                yield _record(row, f"{file.shown}:{number}")
            return
        yield _record(value, origin)
        line += text.count("\n", begins, end)
        start = end


def _skip_blanks(text: str, start: int) -> int:
    while start < len(text) and text[start] in BLANK:
        start += 1
    return start


def _rows_in(value: Any, file: DataFile) -> list[Any]:
    """The rows of a document: a list, the one list in an object around it, or the object itself."""
    if _is_chat(value):
        return [value]
    if isinstance(value, dict):
        tables = [
            held
            for held in value.values()
            if isinstance(held, list) and held and all(isinstance(row, dict) for row in held)
        ]
        wraps = len(tables) == 1 and not _is_chat(tables[0]) and _says_little(value)
        return tables[0] if wraps else [value]
    if isinstance(value, list):
        return value
    raise BadData(f"{file.shown}: a data file holds a list of objects")


def _says_little(around: dict[str, Any]) -> bool:
    """Tell what wraps a list of rows ({"version": 1, "data": […]}) from a row that holds a list."""
    wrappers = {"data", "rows", "train", "examples", "records", "items", "instances", "dataset"}
    return len(around) == 1 or any(
        name.lower() in wrappers for name, held in around.items() if isinstance(held, list)
    )


def _csv(file: DataFile) -> Iterator[DataRow]:
    previous = csv.field_size_limit(streams.MAX_LINE_BYTES)
    ended = 0
    try:
        lines = streams.lines(file)
        number, header = next(lines, (0, ""))
        if not number:
            return
        delimiter = max(",;\t", key=header.count)
        text = (line + "\n" for line in _chain(header, lines))
        reader = csv.reader(text, delimiter=delimiter, strict=True)
        names = _once(next(reader), file)
        ended = reader.line_num
        for cells in reader:
            origin = f"{file.shown}:{ended + 1}"
            ended = reader.line_num
            if not cells:
                continue
            if len(cells) != len(names):
                raise BadData(f"{origin}: {len(cells)} cells where the header has {len(names)}")
            yield DataRow(dict(zip(names, cells, strict=True)), origin)
    except csv.Error as problem:
        raise BadData(f"{file.shown}:{ended + 1}: not valid CSV: {problem}") from None
    finally:
        csv.field_size_limit(previous)


def _chain(first: str, rest: Iterator[tuple[int, str]]) -> Iterator[str]:
    yield first
    for _, line in rest:
        yield line


def _once(names: list[str], file: DataFile) -> list[str]:
    """The header's names without the blanks around them; BadData if one stands twice."""
    names = [name.strip() for name in names]
    if twice := next((name for name in names if name and names.count(name) > 1), None):
        raise BadData(f"{file.shown}:1: the column {twice[:40]!r} stands twice in the header")
    return names


def _text(file: DataFile) -> Iterator[DataRow]:
    """One row per paragraph: paragraphs are parted by blank lines."""
    start, paragraph, size = 0, list[str](), 0
    for number, line in streams.lines(file):
        if not line.strip():
            if paragraph:
                yield DataRow({"text": "\n".join(paragraph)}, f"{file.shown}:{start}")
            paragraph, size = [], 0
            continue
        start = start if paragraph else number
        size += len(line)
        if size > streams.MAX_LINE_BYTES:
            limit = streams.MAX_LINE_BYTES >> 20
            raise BadData(f"{file.shown}:{start}: the paragraph is longer than {limit} MiB")
        paragraph.append(line)
    if paragraph:
        yield DataRow({"text": "\n".join(paragraph)}, f"{file.shown}:{start}")


TEXT_READERS: Mapping[str, Callable[[DataFile], Iterator[DataRow]]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json_document,
    ".csv": _csv,
    ".tsv": _csv,
    ".txt": _text,
}
