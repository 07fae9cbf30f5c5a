"""The owner's data as training wants it: rows to train on and rows kept for measuring, on disk.

Which row is kept is decided by its own content, so a row never changes sides when the file grows.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from nomoat.aggregation.errors import BadData
from nomoat.lora.durable import replacing
from nomoat.lora.formats import Conversation, Dataset, read, write_jsonl


@dataclass(frozen=True, slots=True)
class Shards:
    """Two files in lora's normal form, and how many rows each has."""

    train: Path
    heldout: Path
    train_rows: int
    heldout_rows: int


def prepare(
    data: Path, folder: Path, heldout: float, *, heldout_data: Path | None = None
) -> Shards:
    """Read `data` and share its rows out, unless that was done for this very file already.

    heldout_data: rows to measure with, if the owner has chosen them; all of `data` is trained on.
    Raises BadData naming file and line, or if fewer than two rows can be used.
    """
    wanted = _stamp(data, heldout) + ("" if heldout_data is None else _stamp(heldout_data, 0.0))
    stamp = folder / "stamp.json"
    shards = folder / "train.jsonl", folder / "heldout.jsonl"
    if stamp.exists():
        known = json.loads(stamp.read_text())
        if known["of"] == wanted and all(path.exists() for path in shards):
            return Shards(*shards, known["train"], known["heldout"])
    if heldout_data is None:
        train, kept = share_out(read(data), heldout)
    else:
        train, kept = (_some(path) for path in (data, heldout_data))
    for rows, path in zip((train, kept), shards, strict=True):
        write_jsonl(rows, path)
    with replacing(stamp) as file:
        counts = {"of": wanted, "train": len(train), "heldout": len(kept)}
        file.write(json.dumps(counts).encode())
    return Shards(*shards, len(train), len(kept))


def _some(path: Path) -> tuple[Conversation, ...]:
    rows = read(path).conversations
    if not rows:
        raise BadData(f"{path}: no row in it can be used")
    return rows


def share_out(
    dataset: Dataset, heldout: float
) -> tuple[tuple[Conversation, ...], tuple[Conversation, ...]]:
    """(rows to train on, rows to keep): about the share `heldout`, at least one row each.

    A row is kept if the first 32 bits of SHA-256(its text) / 2³² < heldout.
    """
    rows = dataset.conversations
    if len(rows) < 2:
        raise BadData(f"{len(rows)} usable rows; at least 2 are needed, one of them to measure")
    order = sorted(rows, key=_place)
    count = min(len(rows) - 1, max(1, sum(_place(row) < heldout for row in rows)))
    kept = {id(row) for row in order[:count]}
    return (
        tuple(row for row in rows if id(row) not in kept),
        tuple(row for row in rows if id(row) in kept),
    )


def _place(row: Conversation) -> float:
    text = "\0".join(f"{turn.role}\0{turn.text}" for turn in row.turns)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") / 2**32


def _stamp(data: Path, heldout: float) -> str:
    """What tells a changed file from an unchanged one without reading it: sizes and times."""
    if not data.exists():
        raise BadData(f"{data} does not exist")
    files = sorted(p for p in data.rglob("*") if p.is_file()) if data.is_dir() else [data]
    stats = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    return hashlib.sha256(repr((heldout, stats)).encode()).hexdigest()
