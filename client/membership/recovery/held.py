"""The newest that this machine has verified of its community, and the pieces of it as messages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from nomoat.aggregation.protocol.history.recovery import PART_BYTES, Holding
from nomoat.aggregation.protocol.roster import PAGE, Page
from nomoat.aggregation.protocol.round_end import LineagePage
from nomoat.client.home import CommunityFolder
from nomoat.client.membership import kept_records, pinned_lineage, restored
from nomoat.client.membership.roster_file import RosterFile


def holding(folder: CommunityFolder) -> Holding:
    """Tell what is here, in a few hundred bytes."""
    known, entries = pinned_lineage.read(folder.root), RosterFile(folder.root).entries()
    record = folder.version()
    has = record is not None and folder.adapter(record).is_file()
    return Holding(
        None if known is None else known.record,
        None if known is None else known.ended,
        0 if known is None else len(kept_records.read(folder.root, known.record)),
        record.version.adapter if record is not None and has else b"",
        entries[-1] if entries else None,
        restored.accepted(folder.root),
    )


def records(folder: CommunityFolder, first: int) -> LineagePage | None:
    """Return the records from number `first` on, and the end of the last round, as known here."""
    known = pinned_lineage.read(folder.root)
    if known is None:
        return None
    kept = kept_records.read(folder.root, known.record)
    return LineagePage(tuple(r for r in kept if r.version.number >= first), known.ended)


def entries(folder: CommunityFolder, first: int) -> Page:
    """Return the roster's entries from index `first` on, at most a page of them."""
    known = RosterFile(folder.root).entries()
    return Page(len(known), tuple(known[first : first + PAGE]))


def parts(path: Path, after: int) -> Iterator[tuple[int, bytes]]:
    """Yield (offset, bytes) of a file from `after` on; the last is shorter than the others."""
    with path.open("rb") as file:
        file.seek(after)
        while True:
            part = file.read(PART_BYTES)
            yield after, part
            if len(part) < PART_BYTES:
                return
            after += len(part)
