"""Objects of messages under way: small ones in memory, large ones as files, none in a database.

Flower keeps objects in SQLite, a dozen statements each; what is under way ends with its process, so
that buys nothing. Flower's own in-memory store does the bookkeeping here, and large contents are
laid aside as files: what waits to be fetched or added up costs no memory, however many volunteers
report.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from nomoat.server.fleet.flower_server import InMemoryObjectStore, ObjectTree

LARGE_BYTES = 64 << 10


class ObjectFiles(InMemoryObjectStore):
    """Flower's object store over `folder`, whose content is deleted first."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, mode=0o700)
        self._folder = folder

    def preregister(self, run_id: int, object_tree: ObjectTree) -> list[str]:
        """Announce the objects of a tree; the ids of those that are not here yet."""
        with self.lock_store:  # whole: what it shares with another tree may be being deleted
            return super().preregister(run_id, object_tree)

    def whole(self, object_id: str) -> bool:
        """True if an object and everything in it is here."""
        with self.lock_store:
            entry = self.store.get(object_id)
            return (
                entry is not None
                and entry.is_available
                and all(self.whole(child) for child in entry.child_object_ids)
            )

    def put(self, object_id: str, object_content: bytes) -> None:
        """Keep an object; NoObjectInStoreError or ValueError if it was not announced as it is."""
        super().put(object_id, object_content)  # checks the id, which is its file's name
        if len(object_content) < LARGE_BYTES:
            return
        path = self._folder / object_id
        beside = path.with_suffix(f".{id(object_content)}")  # two volunteers may send the same
        try:
            beside.write_bytes(object_content)
            beside.replace(path)
        except OSError:  # no room: it stays in memory
            beside.unlink(missing_ok=True)
            return
        with self.lock_store:
            entry = self.store.get(object_id)
            if entry is None:  # deleted meanwhile
                path.unlink(missing_ok=True)
            else:
                entry.content = b""

    def get(self, object_id: str) -> bytes | None:
        """An object's content, b"" if it is still on its way, None if nobody announced it."""
        with self.lock_store:
            content = super().get(object_id)
            entry = self.store.get(object_id)
        if content or entry is None or not entry.is_available:
            return content
        try:
            return (self._folder / object_id).read_bytes()
        except FileNotFoundError:  # deleted meanwhile
            return None

    def delete(self, object_id: str) -> None:
        """Delete an object, and those in it that nobody else refers to."""
        with self.lock_store:
            super().delete(object_id)
            if object_id not in self.store:
                (self._folder / object_id).unlink(missing_ok=True)

    def clear(self) -> None:
        """Delete everything."""
        super().clear()
        for path in self._folder.iterdir():
            path.unlink(missing_ok=True)
