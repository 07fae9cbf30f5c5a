"""Orders to go back, keys that change, and a thief with a key of before, in a simulated life."""

from __future__ import annotations

import contextlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from nomoat.server.community.database import Database
from nomoat.server.community.folder import Folder
from nomoat.server.community.opened import OpenCommunity
from nomoat.server.community.versions import ROLLED_BACK
from nomoat.server.release import rolling_back
from nomoat.server.succession import rotation
from nomoat.storage.private import create_private


@dataclass(frozen=True)
class Ordered:
    """A rollback that was ordered when `newest` was the newest version."""

    to: int
    newest: int


def order(community: OpenCommunity, to: int, now: int) -> Ordered:
    """Order a rollback, as `nomoat adapter rollback` does while the community is up."""
    rolling_back.ask(community, to, "", now)
    return Ordered(to, community.versions.get(None).version.number)


def not_heeded(community: OpenCommunity, ordered: Ordered) -> str | None:
    """Between two rounds after an order: how it has not taken effect, exactly once."""
    newest, was = community.versions.get(None), community.versions.get(ordered.newest)
    expected = (
        ordered.newest + 1,
        f"{ROLLED_BACK}{ordered.to}",
        was.digest,
        community.versions.get(ordered.to).version.adapter,
    )
    found = newest.version
    told = (found.number, found.note, found.parent, found.adapter)
    if rolling_back.waiting(community) is None and told == expected:
        return None
    return f"rollback to {ordered.to} after {ordered.newest}: {found.number}, {found.note!r}"


def rotated(home: Path, now: int, *, killed: bool) -> None:
    """Have the key that waits take its place; `killed` before its file does."""
    folder = Folder(home)
    files = (folder.community_key, folder.next_key)
    before = {path: path.read_bytes() for path in files}
    community = OpenCommunity.open(home)
    try:
        rotation.rotate(community, now)
    finally:
        community.registrar.database.close()
    if killed:
        for path, content in before.items():
            path.unlink(missing_ok=True)
            create_private(path, content)


def ask_for_key(home: Path, seed: bytes) -> None:
    """Ask for another key while the community is down."""
    rotation.ask(Folder(home), seed)


def changes(home: Path) -> int:
    """Return how many changes of its key a community's folder tells of."""
    community = OpenCommunity.open(home)
    try:
        return len(community.registrar.keys.changes)
    finally:
        community.registrar.database.close()


@dataclass(frozen=True)
class Theft:
    """A copy of a community's folder from before a change of its key. changes: those in it."""

    home: Path
    changes: int


def steal(home: Path, into: Path) -> Theft:
    """Copy a community's folder with its keys, but for one that waits."""
    shutil.rmtree(into, ignore_errors=True)
    shutil.copytree(home, into)
    stolen = Folder(into)
    stolen.next_key.unlink(missing_ok=True)
    if stolen.address.exists():  # of a thief who cannot write where the records are
        with contextlib.closing(Database(stolen.place)) as records:
            records.copy_to(stolen.database)
        stolen.address.unlink()
    return Theft(into, changes(into))


def committed(home: Path) -> int:
    """Return how many rounds were committed."""
    community = OpenCommunity.open(home)
    try:
        return sum(json.loads(text)["committed"] for text in community.registrar.database.rounds())
    finally:
        community.registrar.database.close()
