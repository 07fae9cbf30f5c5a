"""The owner's data as training sees it: counts, and what is left out and why."""

from __future__ import annotations

from dataclasses import dataclass

from nomoat.client.cli.status_page import rows_not_whole
from nomoat.client.data.split import FINDINGS, made
from nomoat.client.home import CommunityFolder
from nomoat.client.volunteer.status import read_status


@dataclass(frozen=True)
class LeftOutRows:
    """Rows left out for one reason; first: the origin of the first of them."""

    reason: str
    count: int
    first: str


@dataclass(frozen=True)
class DataView:
    """One community's data here. counted: False while no volunteer has read it yet.

    findings: rows that look secret, as `nomoat data scan` tells of them, without what they hold.
    not_whole: what rows were for, and which of them the last round could not use as they are.
    """

    path: str
    heldout_path: str | None
    changes: str
    note: str | None
    counted: bool
    read: int = 0
    trained: int = 0
    held_out: int = 0
    secret: int = 0
    left_out: tuple[LeftOutRows, ...] = ()
    findings: str = ""
    not_whole: tuple[tuple[str, str], ...] = ()


def data_view(folder: CommunityFolder) -> DataView:
    """Look at a community's split and settings."""
    settings, split, status = folder.load(), made(folder.split), read_status(folder)
    heldout = None if settings.heldout_data is None else str(settings.heldout_data)
    note = None if status is None else status.data
    path, changes = str(settings.data), settings.data_changes
    if split is None:
        return DataView(path, heldout, changes, note, counted=False)
    return DataView(
        path,
        heldout,
        changes,
        note,
        True,
        split.read,
        split.train_rows,
        split.heldout_rows,
        split.secret_rows,
        tuple(LeftOutRows(each.reason, each.count, each.first) for each in split.dropped),
        _findings(folder) if split.secret_rows else "",
        () if status is None else tuple(rows_not_whole(status)),
    )


def _findings(folder: CommunityFolder) -> str:
    try:
        return (folder.split / FINDINGS).read_text("utf-8", "replace")
    except OSError:
        return ""
