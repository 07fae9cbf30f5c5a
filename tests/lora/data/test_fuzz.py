"""Whatever bytes a data file holds, it is read with every row counted, or refused in one line.

A few hundred mutations here; NOMOAT_FUZZ=10000 for the long mode.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nomoat.aggregation.errors import BadData
from nomoat.lora.data.conversations import Dataset
from nomoat.lora.data.files.listing import find
from nomoat.lora.data.files.rows import rows_of
from nomoat.lora.data.layouts.columns import KNOWN
from nomoat.lora.data.reading import read

MUTATIONS = int(os.environ.get("NOMOAT_FUZZ", "400"))
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
ROWS: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "ü"}]}]},
    {
        "messages": [
            {"role": "system", "content": ""},
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "content": "1", "tool_call_id": "c"},
            {"role": "assistant", "content": "a", "weight": 1, "reasoning_content": "t"},
        ],
        "tools": [{"type": "function", "function": {"name": "f"}}],
    },
    {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
    {"instruction": "q", "input": 3, "output": "a", "history": [["q", "a"]], "system": "s"},
    {"prompt": "q", "completion": "a", "n": 1.5},
    {"text": "x \U0001f642 y"},
]
PLACES = [b"", b"\0", b"\r", b"\n", b'"', b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\\ud800"]
PLACES += [
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"null",
    b"-1",
    b"1e999",
    b"NaN",
    b"true",
    b"<think>",
]


def _lines() -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()


def _table(write: Callable[[Any, Any], None]) -> bytes:
    import pyarrow

    columns = {
        "prompt": ["q", "r", None],
        "completion": ["a", "b", "c"],
        "at": pyarrow.array([1, 2, 3], pyarrow.timestamp("ns", "Foo/Bar")),
        "messages": [[{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]] * 3,
    }
    sink = io.BytesIO()
    write(pyarrow.table(columns), sink)
    return sink.getvalue()


def _zipped(raw: bytes) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner/d.jsonl", raw)
        archive.writestr("t.txt", "one\n\ntwo")
    return sink.getvalue()


def _seeds() -> dict[str, bytes]:
    import pyarrow
    from pyarrow import feather, parquet

    def stream(table: Any, sink: Any) -> None:
        with pyarrow.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)

    csv = b'prompt,completion,who\n"q, 1",a,x\nr,"b\nc",y\n'
    lines = _lines()
    return {
        "d.jsonl": lines,
        "d.json": json.dumps(ROWS).encode(),
        "e.json": lines,
        "d.csv": csv,
        "d.tsv": csv.replace(b",", b"\t"),
        "d.txt": "one\ntwo\n\nzwölf\r\n\r\nend".encode(),
        "u.jsonl": lines.decode().encode("utf-16"),
        "d.parquet": _table(parquet.write_table),
        "d.arrow": _table(stream),
        "d.feather": _table(feather.write_feather),
        "d.jsonl.gz": gzip.compress(lines, mtime=0),
        "d.jsonl.bz2": bz2.compress(lines),
        "d.jsonl.xz": lzma.compress(lines),
        "d.csv.zst": pyarrow.compress(csv, "zstd", asbytes=True),
        "d.zip": _zipped(lines),
    }


def mutated(raw: bytes, chance: random.Random) -> bytes:
    """One to four changes: a byte, a stretch gone, doubled, or something put in."""
    found = bytearray(raw)
    for _ in range(chance.randint(1, 4)):
        start = chance.randrange(len(found) + 1)
        end = min(len(found), start + chance.choice((1, 2, 8, 64)))
        match chance.randrange(5):
            case 0 if start < len(found):
                found[start] ^= 1 << chance.randrange(8)
            case 1:
                del found[start:end]
            case 2:
                found[start:start] = found[start:end]
            case 3:
                found[start:start] = chance.choice(PLACES)
            case _:
                del found[chance.randrange(len(found) + 1) :]
    return bytes(found)


def _read(path: Path) -> Dataset | str:
    try:
        return read(path)
    except BadData as refusal:
        return str(refusal)


@pytest.mark.parametrize("name", list(_seeds()))
def test_any_bytes_are_read_to_the_last_row_or_refused_in_one_line(
    tmp_path: Path, name: str
) -> None:
    raw, path = _seeds()[name], tmp_path / name
    chance = random.Random(name)
    path.write_bytes(raw)
    assert read(path).rows
    for _ in range(-(-MUTATIONS // len(_seeds()))):
        path.write_bytes(mutated(raw, chance))
        found = _read(path)
        if isinstance(found, str):
            assert "\n" not in found
            assert name in found
            assert found.encode()
            continue
        listing = find(path)
        assert found.rows == sum(1 for file in listing.files for _ in rows_of(file, KNOWN))
        assert found.rows == len(found.conversations) + sum(d.count for d in found.dropped)
        assert len(found.files) + len(found.unread) >= len(listing.files)
        if path.suffix == ".jsonl" and not path.name.startswith("u"):
            lines = path.read_bytes().replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
            told = sum(bool(line.strip(b" \t\xef\xbb\xbf")) for line in lines)
            assert found.rows == told
