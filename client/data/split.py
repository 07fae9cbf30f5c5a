"""The owner's data, split on disk into rows to train on and rows held out for measuring.

The two files are copies of what is the owner's: for its eyes only, and there only while a volunteer
runs that needs them. They are made anew from the data when it starts.

Which row is kept is decided by its own content, so a row never changes sides when the file grows.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from nomoat.aggregation.errors import BadData
from nomoat.client.data.secrets_report import render_scan
from nomoat.client.data.secrets_scan import Allowlist, Scan, scan
from nomoat.lora.data.conversations import Conversation, Dataset, Dropped, merged
from nomoat.lora.data.files.listing import find
from nomoat.lora.data.normal_form import write_jsonl
from nomoat.lora.data.reading import read
from nomoat.lora.data.row_counts import in_words
from nomoat.storage.private import PRIVATE, write_private

FINDINGS, STAMP = "left-out.txt", "stamp.json"


@dataclass(frozen=True, slots=True)
class Split:
    """Two files in lora's normal form, and how many rows each has; `secret` rows are in neither.

    read: all rows of the data. dropped: those that have nothing to learn from, by reason.
    """

    train: Path
    heldout: Path
    train_rows: int
    heldout_rows: int
    secret_rows: int = 0
    read: int = 0
    dropped: tuple[Dropped, ...] = ()

    def line(self) -> str:
        """Tell what became of all rows, in one line."""
        lost = [f"{self.secret_rows} that look secret left out"] if self.secret_rows else []
        lost += [f"{sum(each.count for each in self.dropped)} not used"] if self.dropped else []
        found = ", ".join((f"{self.train_rows} rows to train on", *lost))
        why = f" ({in_words(self.dropped)})" if self.dropped else ""
        return f"{found}, {self.heldout_rows} kept to measure with{why}"


def data_stamp(
    data: Path, heldout: float, allowlist: Allowlist, heldout_data: Path | None = None
) -> str:
    """Return what a split depends on, unread: names, sizes, times; BadData if it is gone."""
    stamp = _stamp(data, heldout, allowlist)
    return stamp if heldout_data is None else stamp + _stamp(heldout_data, 0.0, allowlist)


def made(folder: Path) -> Split | None:
    """The split that was last made in `folder`; None if there is none, or one of before."""
    try:
        return _known(folder, json.loads((folder / STAMP).read_text()))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _made_of(folder: Path) -> str | None:
    """The stamp of the data that the split was made of; None if that cannot be read."""
    try:
        return str(json.loads((folder / STAMP).read_text())["of"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _known(folder: Path, stamp: dict[str, Any]) -> Split:
    dropped = tuple(Dropped(**each) for each in stamp["dropped"])
    return Split(
        *_files(folder),
        stamp["train"],
        stamp["heldout"],
        stamp["secret"],
        stamp["read"],
        dropped,
    )


def prepare(
    data: Path,
    folder: Path,
    heldout: float,
    allowlist: Allowlist | None = None,
    *,
    heldout_data: Path | None = None,
) -> Split:
    """Read `data` and share its rows out, unless that was done for this very file already.

    heldout_data: rows to measure with, if the owner has chosen them; then all of `data` is trained
    on. Rows of `data` that hold something that looks secret are left out, unless `kept` names it.
    Raises BadData naming file and line, or if fewer than two rows can be used.
    """
    allowlist = allowlist or Allowlist()
    wanted = data_stamp(data, heldout, allowlist, heldout_data)
    files = _files(folder)
    known = made(folder)
    if known is not None and _made_of(folder) == wanted and all(path.exists() for path in files):
        return known
    dataset = read(data)
    books = [dataset]
    found = scan_rows(dataset)
    left_out = found.excluded(allowlist)
    rows = tuple(row for row in dataset.conversations if row.origin not in left_out)
    if heldout_data is None:
        train, measured = share_out(replace(dataset, conversations=rows), heldout)
    else:
        books.append(read(heldout_data))
        train, measured = _some(data, rows), _some(heldout_data, books[-1].conversations)
    for part, path in zip((train, measured), files, strict=True):
        write_jsonl(part, path, PRIVATE)
    folder.chmod(0o700)
    write_private(folder / FINDINGS, (render_scan(found, allowlist) + "\n").encode())
    sizes = {"train": len(train), "heldout": len(measured), "secret": len(left_out)}
    told = {"of": wanted, **sizes, **_counted(books)}
    write_private(folder / STAMP, json.dumps(told).encode())
    return _known(folder, told)


def forget(folder: Path) -> None:
    """Delete the copies of the owner's rows; how many there were stays known."""
    for path in _files(folder):
        path.unlink(missing_ok=True)


def _files(folder: Path) -> tuple[Path, Path]:
    return folder / "train.jsonl", folder / "heldout.jsonl"


def _counted(books: list[Dataset]) -> dict[str, Any]:
    """Rows that were read, and those dropped for each reason, of all files together."""
    dropped = [asdict(each) for each in merged(*(each.dropped for each in books))]
    return {"read": sum(each.rows for each in books), "dropped": dropped}


def scan_rows(dataset: Dataset) -> Scan:
    """Find what looks secret in the rows of a data file."""
    return scan((row.origin, _said(row)) for row in dataset.conversations)


def _said(row: Conversation) -> list[str]:
    """All texts of a row that reach a model: what was said, thought and called, and the tools."""
    texts = [part for turn in row.turns for part in (turn.text, turn.thought) if part]
    calls = [call.arguments for turn in row.turns for call in turn.calls]
    return [*texts, *calls, *([row.tools] if row.tools else [])]


def _some(path: Path, rows: tuple[Conversation, ...]) -> tuple[Conversation, ...]:
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
    measured = {id(row) for row in order[:count]}
    return (
        tuple(row for row in rows if id(row) not in measured),
        tuple(row for row in rows if id(row) in measured),
    )


def _place(row: Conversation) -> float:
    text = "\0".join(f"{turn.role}\0{turn.text}" for turn in row.turns)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") / 2**32


def _stamp(data: Path, heldout: float, allowlist: Allowlist) -> str:
    """A digest of sizes and times, which tells a changed file without reading it."""
    if not data.exists():
        raise BadData(f"{data} does not exist")
    files = sorted({file.path for file in find(data).files})
    stats = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    return hashlib.sha256(repr((heldout, stats, _listed(allowlist))).encode()).hexdigest()


def _listed(allowlist: Allowlist) -> list[list[str]]:
    return [sorted(part) for part in (allowlist.origins, allowlist.kinds, allowlist.marks)]
