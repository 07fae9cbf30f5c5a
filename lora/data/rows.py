"""Data files → rows: JSON Lines, JSON, CSV, Parquet and plain text, each row with its origin.

What people own is rarely clean: every refusal names the file and the line.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nomoat.aggregation.errors import BadData

MAX_LINE_BYTES = 16 << 20
MAX_JSON_BYTES = 1 << 30  # a JSON document must be held whole; JSON Lines has no such limit


@dataclass(frozen=True, slots=True)
class Row:
    """One record of a data file; `origin` is "file:line" (Parquet: "file:row"), from 1."""

    values: Mapping[str, Any]
    origin: str


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a file, or of every data file below a folder in the order of their names.

    Raises BadData for whatever cannot be read.
    """
    for file in data_files(path):
        empty = True
        try:
            for row in READERS[file.suffix.lower()](file):
                empty = False
                yield row
        except OSError as problem:
            raise BadData(f"cannot read {file}: {problem.strerror or problem}") from problem
        if empty:
            raise BadData(f"{file} is empty: it has no rows")


def data_files(path: Path) -> tuple[Path, ...]:
    """The data files at `path`, sorted by name; BadData if there are none."""
    if not path.exists():
        raise BadData(f"there is no file or folder {path}")
    if not path.is_dir():
        if path.suffix.lower() not in READERS:
            raise BadData(f"{path}: {_kinds()} can be read, not {path.suffix or 'no suffix'}")
        return (path,)
    below = (p for p in path.rglob("*") if p.suffix.lower() in READERS and p.is_file())
    files = sorted(p for p in below if not _hidden(p.relative_to(path)))
    if not files:
        raise BadData(f"the folder {path} holds no data file ({_kinds()})")
    return tuple(files)


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _kinds() -> str:
    return ", ".join(sorted(READERS))


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """(line number, line without its end) of a UTF-8 file, one line in memory at a time."""
    with file.open("rb") as stream:
        number = 0
        while raw := stream.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(raw) > MAX_LINE_BYTES:
                limit = MAX_LINE_BYTES >> 20
                raise BadData(f"{file}:{number}: the line is longer than {limit} MiB")
            yield number, _decoded(raw, f"{file}:{number}", first=number == 1).rstrip("\r\n")


def _decoded(raw: bytes, origin: str, first: bool) -> str:
    try:
        return raw.decode("utf-8-sig" if first else "utf-8")
    except UnicodeDecodeError as problem:
        raise BadData(
            f"{origin}: byte {problem.start + 1} (0x{raw[problem.start]:02x}) is not UTF-8; "
            "save the file as UTF-8"
        ) from None


def _parsed(text: str, origin: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as problem:
        place = f"column {problem.colno}" if problem.lineno == 1 else f"line {problem.lineno}"
        raise BadData(f"{origin}: not valid JSON: {problem.msg} ({place})") from None
    except (ValueError, RecursionError) as problem:  # 5 000-digit numbers, 100 000 brackets
        reason = "nested too deeply" if isinstance(problem, RecursionError) else str(problem)
        raise BadData(f"{origin}: not usable JSON: {reason[:80]}") from None


def _record(value: Any, origin: str) -> Row:
    if not isinstance(value, dict):
        kind = type(value).__name__
        raise BadData(f"{origin}: a row must be an object of named columns, this is a {kind}")
    return Row(value, origin)


def _jsonl(file: Path) -> Iterator[Row]:
    for number, line in _lines(file):
        if line.strip():
            origin = f"{file}:{number}"
            yield _record(_parsed(line, origin), origin)


def _json(file: Path) -> Iterator[Row]:
    size = file.stat().st_size
    if size > MAX_JSON_BYTES:
        raise BadData(f"{file}: {size >> 20} MiB of JSON in one document; save it as .jsonl")
    text = "\n".join(line for _, line in _lines(file))
    if not text.strip():
        return
    document = _parsed(text, str(file))
    if isinstance(document, dict):  # {"data": […]} wraps a list; else it is one row
        lists = [value for value in document.values() if isinstance(value, list)]
        wraps = len(document) == 1 and lists and all(isinstance(x, dict) for x in lists[0])
        document = lists[0] if wraps and not _is_chat(lists[0]) else [document]
    if not isinstance(document, list):
        raise BadData(f"{file}: a data file holds a list of objects")
    for number, value in enumerate(document, 1):
        origin = f"{file}:{number}"
        yield _record(value, origin)


def _is_chat(items: list[dict[str, Any]]) -> bool:
    """Whether a list is one conversation's turns rather than a list of rows."""
    return bool(items) and ("role" in items[0] or "from" in items[0])


def _csv(file: Path) -> Iterator[Row]:
    previous = csv.field_size_limit(MAX_LINE_BYTES)
    ended = 0
    try:
        lines = _lines(file)
        number, header = next(lines, (0, ""))
        if not number:
            return
        delimiter = max(",;\t", key=header.count)
        text = (line + "\n" for line in _chain(header, lines))
        reader = csv.reader(text, delimiter=delimiter, strict=True)
        names = next(reader)
        ended = reader.line_num
        for cells in reader:
            origin = f"{file}:{ended + 1}"
            ended = reader.line_num
            if not cells:
                continue
            if len(cells) != len(names):
                raise BadData(f"{origin}: {len(cells)} cells where the header has {len(names)}")
            yield Row(dict(zip(names, cells, strict=True)), origin)
    except csv.Error as problem:
        raise BadData(f"{file}:{ended + 1}: not valid CSV: {problem}") from None
    finally:
        csv.field_size_limit(previous)


def _chain(first: str, rest: Iterator[tuple[int, str]]) -> Iterator[str]:
    yield first
    for _, line in rest:
        yield line


def _parquet(file: Path) -> Iterator[Row]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise BadData(f"{file}: reading Parquet needs pyarrow (pip install pyarrow)") from None
    number = 0
    try:
        with parquet.ParquetFile(file) as table:
            for batch in table.iter_batches(batch_size=1024):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(values, f"{file}:{number}")
    except pyarrow.ArrowException as problem:
        reason = " ".join(str(problem).split())[:120]
        raise BadData(f"{file}:{number + 1}: not readable as Parquet: {reason}") from None


def _txt(file: Path) -> Iterator[Row]:
    """One row per paragraph: paragraphs are parted by blank lines."""
    start, paragraph, size = 0, list[str](), 0
    for number, line in _lines(file):
        if not line.strip():
            if paragraph:
                yield Row({"text": "\n".join(paragraph)}, f"{file}:{start}")
            paragraph, size = [], 0
            continue
        start = start if paragraph else number
        size += len(line)
        if size > MAX_LINE_BYTES:
            raise BadData(
                f"{file}:{start}: the paragraph is longer than {MAX_LINE_BYTES >> 20} MiB"
            )
        paragraph.append(line)
    if paragraph:
        yield Row({"text": "\n".join(paragraph)}, f"{file}:{start}")


READERS: Mapping[str, Callable[[Path], Iterator[Row]]] = {
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _csv,
    ".parquet": _parquet,
    ".txt": _txt,
}
